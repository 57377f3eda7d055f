"""The figures of docs/open-pack.md, from the benchmark's JSON."""

from typing import Any

from results import read

RESULT = "open_pack.json"


def verification_table() -> str:
    """A row for each way to cut the face box and to embed it."""
    rows = [
        "| face box | | accuracy | TAR at FAR 1e-1 | from similarity | TAR at FAR 1e-2 | from similarity |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for way in _report()["verification"]:
        how = "stretched" if way["align"] == "none" else "`align=auto`" + (", `flip=true`" if way["flip"] else "")
        points = {point["wanted_far"]: point["found"] for point in way["operating_points"]}
        result = " | ".join(f"{100 * points[far]['tar']:.1f} % | {points[far]['threshold']:.3f}" for far in (0.1, 0.01))
        rows.append(f"| x{way['margin']:g} | {how} | {100 * way['accuracy']['mean']:.2f} % | {result} |")
    return "\n".join(rows)


def attributes_table() -> str:
    """Gender and age, by gender."""
    found = _report()["attributes"]
    rows = ["| | pictures | gender right | mean age error | bias |", "| --- | --- | --- | --- | --- |"]
    for name in ("female", "male", "all"):
        row = found[name]
        rows.append(
            f"| {name} | {row['pictures']} | {row['gender_right_percent']:.1f} % |"
            f" {row['age_mean_absolute_error_years']:.1f} years | {row['age_bias_years']:+.1f} years |"
        )
    return "\n".join(rows)


def pose_sentence() -> str:
    """What known turns and mirror images show about the head pose."""
    found = _report()["head_pose"]
    roll, others, mirror = (
        found["roll_error_degrees_of_known_turns"],
        found["yaw_and_pitch_change_degrees_by_turns"],
        found["mirror_error_degrees"],
    )
    scattered = found["deviation_degrees"]
    return (
        f"On {found['pictures']} pictures that were turned in their plane by known angles up to 45 degrees, the roll"
        f" was off by {roll['median']:.1f} degrees in the median and {roll['p95']:.1f} in 95 of 100; yaw and pitch,"
        f" which must not change, changed by {others['median']:.1f} and {others['p95']:.1f}. Mirrored, where yaw and"
        f" roll change their sign, they were off by {mirror['yaw']['median']:.1f}, {mirror['pitch']['median']:.1f} and"
        f" {mirror['roll']['median']:.1f} degrees (yaw, pitch, roll) in the median. How right yaw and pitch are on real"
        " faces is not known: no picture with a known pose was at hand. They rest on one nose for all faces: over"
        f" these pictures the pitch scattered by {scattered['pitch']:.0f} degrees (one standard deviation), which is"
        " more than heads nod."
    )


def _report() -> dict[str, Any]:
    return read(RESULT)
