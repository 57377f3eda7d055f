"""The figures of docs/open-pack.md, from the benchmark's JSON."""

from typing import Any

from alignment_tables import prose
from results import read

RESULT = "open_pack.json"


def verification_table() -> str:
    """A row for each way to cut the face box and to embed it."""
    rows = [
        "| face box | request | accuracy | TAR at FAR 1e-1 | threshold | TAR at FAR 1e-2 | threshold |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in _report()["verification"]:
        how = "stretched" if way["align"] == "none" else "`align=auto`" + (", `flip=true`" if way["flip"] else "")
        points = {point["wanted_far"]: point["found"] for point in way["operating_points"]}
        cells = " | ".join(f"{100 * points[far]['tar']:.1f} % | {points[far]['threshold']:.3f}" for far in (0.1, 0.01))
        rows.append(f"| x{way['margin']:g} | {how} | {100 * way['accuracy']['mean']:.2f} % | {cells} |")
    return "\n".join(rows)


def attributes_table() -> str:
    """Gender and age, by gender."""
    found = _report()["attributes"]
    rows = ["| | pictures | gender correct | mean age error | bias |", "| --- | --- | --- | --- | --- |"]
    for name in ("female", "male", "all"):
        row = found[name]
        rows.append(
            f"| {name} | {row['pictures']} | {row['gender_right_percent']:.1f} % |"
            f" {row['age_mean_absolute_error_years']:.1f} years | {row['age_bias_years']:+.1f} years |"
        )
    return "\n".join(rows)


def pose_sentence() -> str:
    """How far the head pose is off for known turns and mirror images."""
    found = _report()["head_pose"]
    roll, others, mirror = (
        found["roll_error_degrees_of_known_turns"],
        found["yaw_and_pitch_change_degrees_by_turns"],
        found["mirror_error_degrees"],
    )
    scattered = found["deviation_degrees"]
    return prose(
        f"{found['pictures']} pictures were turned in their plane by known angles up to 45 degrees. The roll was off by"
        f" {roll['median']:.1f} degrees (median; 95th percentile {roll['p95']:.1f}). Yaw and pitch, which must not"
        f" change, changed by {others['median']:.1f} ({others['p95']:.1f}). In the mirror image, where yaw and roll"
        f" change their sign, yaw, pitch and roll were off by {mirror['yaw']['median']:.1f},"
        f" {mirror['pitch']['median']:.1f} and {mirror['roll']['median']:.1f} degrees (medians). The accuracy of yaw"
        " and pitch on real faces is not known, because no pictures with known poses were available. They assume the"
        f" same nose for all faces: over these pictures the pitch has a standard deviation of {scattered['pitch']:.0f}"
        " degrees, more than heads nod."
    )


def _report() -> dict[str, Any]:
    return read(RESULT)
