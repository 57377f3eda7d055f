"""Tables of the HTTP reference, from the OpenAPI document: its descriptions are the source."""

from collections.abc import Iterator
from typing import Any

SECTIONS = {
    "include_attributes": "#attributes",
    "include_quality": "#quality",
    "align": "#alignment",
    "resize": "#large-jpegs",
    "X-Embedding-Recipe": "#storing-vectors",
    "X-Require-Recipe": "#storing-vectors",
    "traceresponse": "operations.md#trace-requests",
}
"""Where more is said about a parameter or header, as http-api.md links it."""
EMBED, BATCH = "/embed", "/embed/batch"


def options_table(document: dict[str, Any]) -> str:
    """A row for each query parameter of the two operations, which have the same."""
    rows = []
    for parameter in _parameters(document, "query"):
        schema, name = parameter["schema"], parameter["name"]
        default = schema.get("default")
        words = [f"**`{word}`**" if word == default else f"`{word}`" for word in schema.get("enum", ())]
        rows.append((f"`{name}`", ", ".join(words) or schema["type"], parameter["description"] + _more(name)))
    return _table(("query", "values (**default**)", "meaning"), rows)


def request_headers_table(document: dict[str, Any]) -> str:
    """A row for each header that a request may have."""
    rows = [
        (f"`{each['name']}`", each["description"] + _more(each["name"])) for each in _parameters(document, "header")
    ]
    return _table(("request header", "meaning"), rows)


def answer_headers_table(document: dict[str, Any]) -> str:
    """A row for each header of an answer, with what it says of a batch where that is something else."""
    single, batch = (dict(_answer_headers(document, path)) for path in (EMBED, BATCH))
    rows = []
    for name in dict.fromkeys((*single, *batch)):
        meaning = single.get(name, "")
        if name not in batch:
            meaning += " Not with a batch."
        elif batch[name] != meaning:
            meaning += f" With a batch: {batch[name][:1].lower()}{batch[name][1:]}"
        rows.append((f"`{name}`", meaning.strip() + _more(name)))
    return _table(("answer header", "meaning"), rows)


def _parameters(document: dict[str, Any], place: str) -> list[dict[str, Any]]:
    of_embed, of_batch = (document["paths"][path]["post"]["parameters"] for path in (EMBED, BATCH))
    assert of_embed == of_batch, "one table describes both operations"
    return [each for each in of_embed if each["in"] == place]


def _answer_headers(document: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Name and description of each header, that of a problem with its statuses."""
    of_problems = dict[str, list[str]]()
    for status, response in document["paths"][path]["post"]["responses"].items():
        for name, header in response.get("headers", {}).items():
            if status == "200":
                yield name, header["description"]
            else:
                of_problems.setdefault(f"{name}|{header['description']}", []).append(status)
    for key, statuses in of_problems.items():
        name, _, description = key.partition("|")
        yield name, f"With {' and '.join(statuses)}: {description[:1].lower()}{description[1:]}"


def _more(name: str) -> str:
    return f" [More]({SECTIONS[name]})" if name in SECTIONS else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
