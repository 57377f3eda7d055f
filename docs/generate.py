"""Writes the generated parts of the docs: settings and problems from the code, measurements from their JSON.

    python docs/generate.py           write them
    python docs/generate.py --check   fail if a part is out of date, or was measured with another landmark regressor

Generated text stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import PydanticUndefined

import alignment_tables
import open_pack_tables
import performance_tables
import precision_tables
import quality_tables
import sizing_tables
import threshold_tables
from arcface_api.api.problems import STATUS_BY_ERROR
from arcface_api.bench import sweep
from arcface_api.loading import regressor_content
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings
from results import RESULTS

DOCS = Path(__file__).parent


def settings_table() -> str:
    """A row for each setting, in the order of `Settings`."""
    rows = ["| variable | option | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if default is None or default is PydanticUndefined or default == frozenset():
            shown = ""
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        option = f"--{name.replace('_', '-')}"
        rows.append(f"| `{ENVIRONMENT_PREFIX}{name.upper()}` | `{option}` | {shown} | {field.description} |")
    return "\n".join(rows)


def problems_table() -> str:
    """A row for each problem a request can meet, by status."""
    rows = ["| status | `code` | meaning |", "| --- | --- | --- |"]
    for error, status in sorted(STATUS_BY_ERROR.items(), key=lambda item: (item[1], item[0].code)):
        rows.append(f"| {int(status)} | `{error.code}` | {(error.__doc__ or '').strip()} |")
    rows.append("| 404, 405 | `not_found`, `method_not_allowed` | No such path, or not with this method. |")
    return "\n".join([*rows, "| 500 | `internal_error` | A defect of the service; its log has the details. |"])


def is_outdated(result: Path) -> bool:
    """Whether the figures were measured with another landmark regressor than the package contains."""
    return any(sha256 != regressor_content().sha256 for sha256 in regressors(json.loads(result.read_bytes())))


def regressors(result: object) -> Iterator[str]:
    """SHA-256 of every landmark regressor that a result names, at any depth."""
    if isinstance(result, dict):
        if isinstance(sha256 := result.get("regressor_sha256"), str):
            yield sha256
        result = list(result.values())
    if isinstance(result, list):
        for part in result:
            yield from regressors(part)


GENERATED = {
    "alignment.md": {
        "lead": alignment_tables.lead,
        "thresholds": alignment_tables.thresholds_table,
        "time": alignment_tables.time_sentence,
    },
    "results/alignment.md": {
        "sentence": alignment_tables.sentence,
        "unseen": alignment_tables.unseen_table,
        "official": alignment_tables.official_table,
    },
    "configuration.md": {"settings": settings_table},
    "http-api.md": {"problems": problems_table},
    "open-pack.md": {
        "verification": open_pack_tables.verification_table,
        "attributes": open_pack_tables.attributes_table,
        "pose": open_pack_tables.pose_sentence,
    },
    "operations.md": {"sweep rule": lambda: sweep.RULE},
    "performance.md": {
        "peers": performance_tables.peers,
        "ratios": performance_tables.ratios,
        "machine": performance_tables.machine,
        "batch sizes": performance_tables.batch_sizes,
        "cost": performance_tables.cost,
        "cost example": performance_tables.cost_example,
    },
    "precision.md": {
        "reference": precision_tables.reference_sentence,
        "accuracy": precision_tables.accuracy_table,
        "speed": precision_tables.speed_table,
    },
    "quality.md": {
        "numbers": quality_tables.numbers_table,
        "norm": quality_tables.norm_sentence,
        "meanings": quality_tables.meanings_table,
        "sentence": quality_tables.sentence,
        "errors": quality_tables.errors_table,
        "ways": quality_tables.ways_table,
        "aspect": quality_tables.aspect_sentence,
        "confidence": quality_tables.confidence_table,
    },
    "sizing.md": {
        "settings": sizing_tables.settings,
        "rate": sizing_tables.rate_sentence,
        "rates": sizing_tables.rates,
        "limits": sizing_tables.limits_sentence,
        "process": sizing_tables.process_sentence,
    },
    "thresholds.md": {
        "borrowed": threshold_tables.borrowed_table,
        "search": threshold_tables.search_table,
        "pairs_needed": threshold_tables.pairs_needed_table,
        "pairs": threshold_tables.pairs_sentence,
        "lfw": threshold_tables.lfw_table,
        "distances": threshold_tables.distances_table,
    },
}


def main() -> None:
    """Write or check every generated part."""
    check = sys.argv[1:] == ["--check"]
    if check and (outdated := [path.name for path in sorted(RESULTS.glob("*.json")) if is_outdated(path)]):
        sys.exit(
            f"{', '.join(outdated)}: measured with another landmark regressor than the package contains. Measure again"
            " as benchmarks/README.md says, then run `make fix`."
        )
    for file, parts in GENERATED.items():
        path = DOCS / file
        text = path.read_text(encoding="utf-8")
        new = text
        for name, make in parts.items():
            pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            assert pattern.search(new), f"{path} has no place for {name}"
            new = pattern.sub(lambda found, make=make: found[1] + make() + "\n" + found[2], new)
        if new != text:
            if check:
                sys.exit(f"{path.name} is not up to date: run `make fix`.")
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
