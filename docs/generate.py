"""Writes the generated parts of the docs, from code, from measurements in JSON, and from the documents themselves.

    python docs/generate.py           write them
    python docs/generate.py --check   fail if a part is out of date, or was measured with another landmark regressor

Generated text stands between `<!-- generated: NAME -->` and `<!-- end -->`; `openapi.json` is generated as a whole.
In the Helm chart's schema, the names of the settings are generated; its alert rules are a copy.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

import alignment_tables
import bulk_tables
import client_reference
import command_sections
import documented_commands
import feed_tables
import http_tables
import migrating_tables
import open_pack_tables
import performance_tables
import pgvector_tables
import precision_tables
import quality_tables
import ray_tables
import reliability_tables
import sizing_tables
import threshold_tables
from arcface_api.api.app import create_app
from arcface_api.api.metrics import Metrics
from arcface_api.api.problems import STATUS_BY_ERROR
from arcface_api.bench import sweep
from arcface_api.bulk.rows import COLUMNS
from arcface_api.cli.embed import MODEL_SETTINGS, embed
from arcface_api.cli.setting_options import shown_default
from arcface_api.doctor import CHECKS
from arcface_api.loading import regressor_content
from arcface_api.packs import PackLocations, locate
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings
from results import RESULTS

DOCS = Path(__file__).parent
DEPLOY = DOCS.parent / "deploy"
CHART_SCHEMA = DEPLOY / "helm" / "arcface-api" / "values.schema.json"
CHART_RULES = DEPLOY / "helm" / "arcface-api" / "files" / "rules.yml"
LANGUAGES = {".py": "python", ".sql": "sql", ".sh": "text", ".mjs": "js", ".java": "java", ".cs": "csharp"}
"""What a block of code is called, by the suffix of its file."""
CHART_DECIDES = {
    "accept_license",
    "cache_dir",
    "host",
    "models_dir",
    "pack",
    "pack_mirror",
    "port",
    "pull",
    "tls_certificate_file",
    "tls_client_ca_file",
    "tls_key_file",
}
"""Settings that the Helm chart makes of its own values."""


def settings_table() -> str:
    """A row for each setting, in the order of `Settings`."""
    rows = ["| variable | option | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        shown = f"`{default}`" if (default := shown_default(name)) else ""
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


def checks_table() -> str:
    """A row for each check of `arcface-api doctor`, in the order in which they run."""
    rows = ["| check | question | a problem | a note |", "| --- | --- | --- | --- |"]
    rows += [f"| `{check.name}` | {check.asks} | {check.problem} | {check.note} |" for check in CHECKS]
    return "\n".join(rows)


def embed_options_table() -> str:
    """A row for each option of `arcface-api embed` that is not a setting."""
    rows = ["| option | meaning |", "| --- | --- |"]
    for parameter in embed.get_params(click.Context(embed)):
        if isinstance(parameter, click.Option) and parameter.name not in {*MODEL_SETTINGS, "help"}:
            chosen = parameter.type
            metavar = "`, `".join(chosen.choices) if isinstance(chosen, click.Choice) else parameter.metavar
            value = "" if parameter.is_flag else f" {metavar}" if metavar and "`" not in metavar else ""
            allowed = f" One of `{metavar}`." if metavar and "`" in metavar else ""
            rows.append(f"| `{parameter.opts[0]}{value}` | {parameter.help}{allowed} |")
    return "\n".join(rows)


def columns_table() -> str:
    """A row for each column of `arcface-api embed`'s output."""
    rows = ["| column | type | meaning |", "| --- | --- | --- |"]
    for column in COLUMNS:
        kind = "fixed_size_list<float32 or float16>[dim]" if column.name == "embedding" else str(column.type)
        kind = kind.replace("item: ", "").replace("element: ", "")
        name = f"`{column.name}`" if column.option is None else f"*`{column.name}`*"
        option = f" (`--{column.option.replace('_', '-')}`)" if column.option else ""
        rows.append(f"| {name} | `{kind}`{'' if column.is_nullable else ', not null'} | {column.meaning}{option} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """A row for each metric, as `/metrics` names its samples."""
    metrics = Metrics()
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metrics.labels[family.name])
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


def decisions_list() -> str:
    """The decision records, by number."""
    files = sorted(path for path in (DOCS / "adr").glob("*.md") if path.name[0].isdigit())
    titles = {path.name: path.read_text().split("\n", 1)[0].removeprefix("# ") for path in files}
    return "\n".join(f"{title.split('.')[0]}. [{title.split('. ', 1)[1]}]({name})" for name, title in titles.items())


def example(path: str, start: str = "", end: str | None = None) -> str:
    """The part of a file of the examples from one text up to another, as a block of code."""
    text = (DOCS.parent / "examples" / path).read_text(encoding="utf-8")
    part = text[text.index(start) : text.index(end) if end else None]
    return f"```{LANGUAGES[Path(path).suffix]}\n{part.strip()}\n```"


@cache
def openapi() -> dict[str, Any]:
    """What `/openapi.json` answers, which does not depend on the pack or the settings."""
    with TemporaryDirectory() as folder:
        nowhere = PackLocations(None, Path(folder), Path(folder))
        settings = Settings(pack="open", device="cpu", precision="float32", threads=1, lanes=1, cache_dir=Path(folder))
        return create_app(locate("open", nowhere), settings).framework.openapi()


def chart_schema() -> str:
    """The schema of the Helm chart's values, with the settings that they may contain."""
    schema = json.loads(CHART_SCHEMA.read_bytes())
    schema["properties"]["settings"]["propertyNames"]["enum"] = [
        name for name in Settings.model_fields if name not in CHART_DECIDES
    ]
    return json.dumps(schema, indent=2) + "\n"


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
    "adr/README.md": {"decisions": decisions_list},
    "alignment.md": {
        "lead": alignment_tables.lead,
        "thresholds": alignment_tables.thresholds_table,
        "time": alignment_tables.time_sentence,
    },
    "results/alignment.md": {
        "sentence": alignment_tables.sentence,
        "full view": alignment_tables.full_view_table,
        "hard": alignment_tables.hard_table,
    },
    "commands.md": {"commands": command_sections.sections},
    "client.md": {
        "client measured": client_reference.measured,
        "client errors": client_reference.errors_tree,
        "client reference": client_reference.reference,
    },
    "commands-not-run.md": {
        "not run": documented_commands.not_run,
        "run elsewhere": documented_commands.table_of_run_elsewhere,
    },
    "bulk.md": {"options": embed_options_table, "columns": columns_table, "rate": bulk_tables.rate_sentence},
    "configuration.md": {"settings": settings_table},
    "doctor.md": {"checks": checks_table},
    "http-api.md": {
        "options": lambda: http_tables.options_table(openapi()),
        "request headers": lambda: http_tables.request_headers_table(openapi()),
        "answer headers": lambda: http_tables.answer_headers_table(openapi()),
        "problems": problems_table,
    },
    "metrics.md": {"metrics": metrics_table},
    "migrating.md": {"roads": migrating_tables.roads_table, "deepface": migrating_tables.deepface_table},
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
    "ray.md": {
        "costs": ray_tables.costs,
        "example": ray_tables.example,
        "measured": ray_tables.measured,
        "billion": ray_tables.billion,
    },
    "reliability.md": {
        "faults": reliability_tables.faults_table,
        "faults_sentence": reliability_tables.faults_sentence,
        "soak": reliability_tables.soak_sentence,
        "stops": reliability_tables.stops_table,
    },
    "sizing.md": {
        "settings": sizing_tables.settings,
        "rate": sizing_tables.rate_sentence,
        "rates": sizing_tables.rates,
        "limits": sizing_tables.limits_sentence,
        "process": sizing_tables.process_sentence,
    },
    "pgvector.md": {
        "schema": lambda: example("pgvector/schema.sql"),
        "search": lambda: example("pgvector/search.py", 'SEARCH = """', "@dataclass"),
        "pairs": lambda: example("pgvector/duplicates.py", 'PAIRS = """', "def main"),
        "found": pgvector_tables.found_table,
        "index": pgvector_tables.index_table,
        "sizes": pgvector_tables.sizes_table,
        "toast": pgvector_tables.toast_sentence,
        "filters": pgvector_tables.filters_sentence,
        "machine": pgvector_tables.machine_sentence,
    },
    "requests.md": {
        "curl": lambda: example("requests/similarity.sh"),
        "client": lambda: example("requests/similarity_with_client.py"),
        "python": lambda: example("requests/similarity.py"),
        "node": lambda: example("requests/similarity.mjs"),
        "java": lambda: example("requests/Similarity.java"),
        "csharp": lambda: example("requests/Similarity.cs"),
    },
    "tutorial.md": {"search": lambda: example("pgvector/search.py", 'SEARCH = """', "@dataclass")},
    "packs.md": {"checks": feed_tables.checks_table, "probes": feed_tables.probes_table},
    "thresholds.md": {
        "borrowed": threshold_tables.borrowed_table,
        "registered": threshold_tables.registered_table,
        "covered": alignment_tables.covered_table,
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
    generated = {
        DOCS / "openapi.json": json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n",
        CHART_SCHEMA: chart_schema(),
        CHART_RULES: (DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"),
    }
    for file, parts in GENERATED.items():
        text = (DOCS / file).read_text(encoding="utf-8")
        for name, make in parts.items():
            pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            assert pattern.search(text), f"{file} has no place for {name}"
            text = pattern.sub(lambda found, make=make: found[1] + make() + "\n" + found[2], text)
        generated[DOCS / file] = text
    for path, text in generated.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            if check:
                sys.exit(f"{path.name} is not up to date: run `make fix`.")
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
