"""Finds the commands that documents show, and reads the catalogue of those that no test runs as they stand.

tests/docs/test_commands.py runs every command that is found here, but for those of docs/commands-not-run.toml.
"""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "deploy", "benchmarks", "training", "examples")
SHELL = ("sh", "bash", "shell", "console")
PROGRAMS = (
    "python",
    "js",
    "javascript",
    "java",
    "csharp",
    "sql",
    "nginx",
    "caddy",
    "yaml",
    "toml",
    "ini",
    "dockerfile",
)
"""Each block of these is one program, or one configuration."""
DATA = ("json", "text", "csv")
USAGE = "usage"
"""Reason of the usage lines in docstrings, which contain placeholders."""

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}(?:pip|python|make|curl|docker|arcface-api) .*\n)+")
_IN_COMMENT = re.compile(r"#.*?((?:[A-Z_]+=\S* )*docker compose [^`\n]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    number: int
    """Of the document's blocks in this language, from 1."""
    text: str
    follows: "Block | None"
    """The block before it, if no text stands between them."""

    @property
    def name(self) -> str:
        """As the catalogue calls it."""
        return f"{self.document}: {self.language} {self.number}"


@dataclass
class Command:
    """A command of a shell, or a program, and where it is shown."""

    text: str
    language: str = "sh"
    places: list[str] = field(default_factory=list)
    """Documents with their lines."""
    is_usage: bool = False


def documents(root: Path = ROOT) -> Iterator[Path]:
    """Every document of the checkout."""
    yield from sorted(root.glob("*.md"))
    for folder in FOLDERS:
        yield from sorted((root / folder).rglob("*.md"))


def blocks(root: Path = ROOT) -> Iterator[Block]:
    """The fenced blocks of all documents."""
    for path in documents(root):
        text, document = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        numbers: dict[str, int] = {}
        before: Block | None = None
        end = 0
        for found in _FENCE.finditer(text):
            language = found[1]
            numbers[language] = numbers.get(language, 0) + 1
            follows = None if text[end : found.start()].strip() else before
            line = text.count("\n", 0, found.start(2)) + 1
            before = Block(document, line, language, numbers[language], found[2], follows)
            end = found.end()
            yield before


def commands(root: Path = ROOT) -> dict[str, Command]:
    """Every command that documents show, by the name that the catalogue uses: its text in one line."""
    found: dict[str, Command] = {}

    def add(name: str, command: Command, place: str) -> None:
        found.setdefault(name, command).places.append(place)

    for block in blocks(root):
        if block.language in PROGRAMS:
            add(block.name, Command(block.text, block.language), f"{block.document}:{block.line}")
            continue
        for line, text in commands_of(block):
            add(in_one_line(text), Command(text), f"{block.document}:{line}")
    for path in [*documents(root), *sorted(root.glob("compose*.yaml"))]:
        for line, text in _between(path):
            add(in_one_line(text), Command(text), f"{path.relative_to(root).as_posix()}:{line}")
    for path in (path for folder in ("benchmarks", "training") for path in sorted((root / folder).rglob("*.py"))):
        for text in re.findall(r"^ {4}(python -m .*?)(?: {3}.*)?$", _docstring(path), re.MULTILINE):
            add(text, Command(text, is_usage=True), path.relative_to(root).as_posix())
    return found


def commands_in_sentences(root: Path = ROOT) -> dict[str, list[str]]:
    """What documents name in backticks, each with its documents: our commands, targets of make, and benchmarks.

    Left out are the changelog, which says of each version what held then, and the page that is made from this module.
    """
    found: dict[str, list[str]] = {}
    for path in documents(root):
        if path.name not in ("CHANGELOG.md", "commands-not-run.md"):
            text = _FENCE.sub("", path.read_text(encoding="utf-8"))
            for span in re.findall(r"`((?:make|arcface-api) [^`\n]+|python -m [a-z_.]+(?: [^`\n]*)?)`", text):
                found.setdefault(span, []).append(path.relative_to(root).as_posix())
    return found


def commands_of(block: Block) -> Iterator[tuple[int, str]]:
    """The commands of a block, without their comments, each with its line."""
    lines = block.text.splitlines()
    if block.language not in SHELL or any(line.startswith("$ ") for line in lines):
        lines = [line[2:] if line.startswith("$ ") else "" for line in lines]
    begun = ""
    for number, line in enumerate(lines, block.line):
        begun += line if not begun else f"\n{line}"
        if is_open(begun):
            continue
        if text := without_comment(begun):
            yield number - text.count("\n"), text
        begun = ""


def is_open(text: str) -> bool:
    """Whether a command goes on in the next line: a quote is open, the line break is escaped, or a pipe waits."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return text.endswith(("\\", "|", "&&"))


def without_comment(text: str) -> str:
    """The command alone."""
    for found in re.finditer(r"(?:^|\s)#", text):
        if not is_open(text[: found.start()]):
            return text[: found.start()].strip()
    return text.strip()


def in_one_line(text: str) -> str:
    """A command as the catalogue and the names of tests write it."""
    return " ".join(text.replace("\\\n", " ").split())


def _between(path: Path) -> Iterator[tuple[int, str]]:
    """Indented commands of a document, outside its blocks; commands in the comments of a compose file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        for found in _IN_COMMENT.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, found[1].strip()
        return
    text = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
    for found in _INDENTED.finditer(text):
        first = text.count("\n", 0, found.start()) + 1
        yield from ((first + number, line.strip()) for number, line in enumerate(found[0].splitlines()))


def _docstring(path: Path) -> str:
    """A module's docstring, in which a command that goes on behind an escaped line break is one line."""
    return re.sub(r" {2,}(?=--)", " ", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def catalogue() -> dict[str, Any]:
    """What docs/commands-not-run.toml says."""
    return tomllib.loads((ROOT / "docs" / "commands-not-run.toml").read_text(encoding="utf-8"))


def run_elsewhere() -> dict[str, dict[str, str]]:
    """The commands that another test runs, each with that test and what its file has."""
    return {name: about for about in catalogue()["run_elsewhere"] for name in about["commands"]}


def reasons() -> dict[str, str]:
    """The commands that no test runs as they stand, each with the name of its reason."""
    found, not_run = commands(), catalogue()["not_run"]
    listed = {name: reason for reason, about in not_run.items() for name in about["commands"] if name in found}
    return listed | {name: USAGE for name, command in found.items() if command.is_usage}


def not_run() -> str:
    """A section for each reason why no test runs a command."""
    shown, found = reasons(), commands()
    lines: list[str] = []
    for reason, about in catalogue()["not_run"].items():
        lines += [f"**{about['title']}.** {about['because']}", ""]
        names = [name for name in shown if shown[name] == reason]
        if reason == USAGE:
            modules = sorted({name.split()[2] for name in names})
            by_package = groupby(modules, key=lambda module: module.rpartition(".")[0])
            lines += [f"- `{package}`: {', '.join(m.rpartition('.')[2] for m in each)}" for package, each in by_package]
        else:
            lines += [f"- `{name}` ({_documents(found[name])})" for name in names]
        lines.append("")
    return "\n".join(lines).strip()


def table_of_run_elsewhere() -> str:
    """A row for each test that runs commands of documents."""
    rows = ["| commands | shown in | run by |", "| --- | --- | --- |"]
    found = commands()
    for about in catalogue()["run_elsewhere"]:
        names = [name for name in about["commands"] if name in found]  # a test says which are not
        shown = "<br>".join(f"`{name.replace('|', chr(92) + '|')}`" for name in names)
        places = ", ".join(dict.fromkeys(_documents(found[name]) for name in names))
        file, _, test = about["test"].partition("::")
        rows.append(f"| {shown} | {places} | `{test}` in {file} |")
    return "\n".join(rows)


def _documents(command: Command) -> str:
    """The documents that show it, without lines, which move."""
    return ", ".join(dict.fromkeys(place.partition(":")[0] for place in command.places))
