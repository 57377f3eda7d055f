"""The reference of the Python client, from its signatures and docstrings."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arcface_api.client import (
    AsyncClient,
    Client,
    Embedding,
    Health,
    Info,
    Options,
    Picture,
    answers,
    blocking,
    connection,
    images,
    problems,
)
from results import read

CLIENTS = ("client, shared", "client, one a thread")
METHODS = ("embed", "embed_many", "similarity", "threshold", "info", "health", "close")
SHOWN = (
    Options,
    Picture,
    Embedding,
    answers.Attributes,
    answers.Pose,
    answers.Quality,
    Info,
    answers.Threshold,
    Health,
)


def measured() -> str:
    """What `benchmarks/questions/client.py` measured."""
    report = read("client.json")
    rates, ratios = report["pictures_per_second"], report["ratios"]
    lowest = {client: min(ratio for name, ratio in ratios.items() if name.startswith(client)) for client in CLIENTS}
    return (
        f"Eight threads that each embed batches of {report['batch']}, together twice what the service holds, reached"
        f" {rates[CLIENTS[0]]:.0f} pictures a second with one client that they share and {rates[CLIENTS[1]]:.0f} with"
        f" one each, and lost {report['lost'] or 'none'}. The load generator reached"
        f" {rates['load, single pictures']:.0f} with single pictures and {rates['load, batches']:.0f} with batches:"
        f" the clients reached at least {lowest[CLIENTS[0]]:.2f} and {lowest[CLIENTS[1]]:.2f} of it"
        f" ({report['recogniser']['name']}, {report['machine']['cpus']} CPUs, {report['machine']['processor']};"
        f" medians of {len(report['rounds'])} rounds, [result](../benchmarks/results/client.json)). `import"
        f" arcface_api.client` took {report['import_ms']:.0f} ms."
    )


def errors_tree() -> str:
    """The tree that the module of the errors draws."""
    drawn = (inspect.getdoc(problems) or "").split("\n\n")[1]
    return f"```text\n{inspect.cleandoc(drawn)}\n```"


def reference() -> str:
    """A part for each method and class, with its signature as it is in the source."""
    source = _definitions(connection) | _definitions(blocking)
    settings = source["Connection.__init__"]
    parts = [f"### `Client({_arguments(settings)})`\n", _section(inspect.getdoc(Client) or "")]
    parts += [_section(inspect.getdoc(Client.__init__) or ""), ""]
    for name in METHODS:
        method = source[f"Client.{name}"]
        returned = ast.unparse(method.returns) if method.returns else "None"
        parts += [f"#### `{name}({_arguments(method)}) -> {returned}`\n", _section(ast.get_docstring(method) or "")]
    parts += ["### `AsyncClient`\n", _section(inspect.getdoc(AsyncClient) or "")]
    for kind in SHOWN:
        parts += [f"### `{kind.__name__}`\n", (inspect.getdoc(kind) or "") + "\n", *_fields(kind), ""]
    return "\n".join(parts).strip()


def _definitions(module: Any) -> dict[str, ast.FunctionDef]:
    return {
        f"{kind.name}.{method.name}": method
        for kind in _tree(module).body
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef)
    }


def _tree(module: Any) -> ast.Module:
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def _arguments(method: ast.FunctionDef) -> str:
    written = ast.unparse(method.args).removeprefix("self, ").removeprefix("self")
    return written.replace("Unpack[Options]", "Options").replace("DEFAULT_URL", repr(connection.DEFAULT_URL))


def _section(docstring: str) -> str:
    """A docstring of Google's style as Markdown."""
    text, example = [], False
    for line in docstring.splitlines():
        is_code = bool(re.match(r"(>>>|\.\.\. )", line.strip())) or (example and line.strip() != "")
        if is_code != example:
            text.append("```python" if is_code else "```")
        example = is_code
        text.append(line)
    if example:
        text.append("```")
    return _lists("\n\n".join(inspect.cleandoc(part) for part in _parts(text))) + "\n"


def _parts(lines: list[str]) -> Iterator[str]:
    """Code and text apart, as their indents differ."""
    part: list[str] = []
    for line in lines:
        if line.startswith("```python"):
            yield "\n".join(part) + "\n"
            part = []
        if line == "```":
            yield "\n".join([part[0], inspect.cleandoc("\n".join(part[1:])), line])
            part = []
        else:
            part.append(line)
    yield "\n".join(part)


def _lists(text: str) -> str:
    """`Args:` and `Raises:` as lists."""
    text = re.sub(
        r"^(Args|Raises):$",
        lambda found: f"\n**{'Arguments' if found[1] == 'Args' else 'Raises'}**\n",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(
        r"^    (?! )([\w, ]+): ", lambda found: f"- `{found[1]}`: ".replace(", ", "`, `"), text, flags=re.MULTILINE
    )
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"^ {8}", "  ", text, flags=re.MULTILINE)).strip()


def _fields(kind: type) -> Iterator[str]:
    """A row for each field, with the string below it in the source."""
    module = next(module for module in (answers, images) if module.__name__ == kind.__module__)
    body = next(
        each for each in _tree(module).body if isinstance(each, ast.ClassDef) and each.name == kind.__name__
    ).body
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for field, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = " ".join(str(below.value.value).split()) if is_text else ""  # type: ignore[union-attr]  # as just seen
            written = ast.unparse(field.annotation).replace("|", "\\|").replace("'", '"')
            yield f"| `{ast.unparse(field.target)}` | `{written}` | {text} |"
