"""Finds words that this project does not use, in code, comments, messages and pages.

    python docs/words.py            every place, with what to write instead; exit status 1 where there is one

Most are English that reads translated: the field has a shorter word for each.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "docs", "deploy", "benchmarks", "training", "requirements", ".ci")
SUFFIXES = (".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".html", ".in")
PROGRAMS = ("Makefile", "Dockerfile", "run", "lock", "make-environment", "all-pythons")
LEFT_OUT = (
    "README.ru.md",  # Russian
    "docs/words.py",  # these two name the words
    "tests/tools/test_words.py",
    "docs/upstream/",  # what was written to other projects stands as it was sent
    "benchmarks/results/",
)
CHANGELOG = "CHANGELOG.md"
"""Of it only the newest section is checked: released ones stand as they were published."""

WORDS = {
    r"tell(?!\(\))(s|ing)?|told": "report, return, state, show, classify, distinguish",
    r"mend(s|ed|ing)?": "fix",
    r"by hand": "manually; of a figure: measured once, not recorded",
    r"of late": "recently",
    r"lest": "so that … not; otherwise",
    r"whoever": "callers who …, the person who …",
    r"by company": "together with others",
    r"that or no start": "fails at startup if unavailable",
    r"anew": "again",
    r"drawn faces": "synthetic faces",
    r"stands? in for": "replaces; is used instead of",
}
"""Regular expression of the word → what to write instead. Spaces also match line breaks, in comments too. A file has a
method `tell()`."""

_SPACE = r"(?:\s|#)+"
# In identifiers words end at underscores, which count as letters to the pattern's own word boundary.
_PATTERNS = [
    (re.compile(rf"(?<![^\W_])(?:{word.replace(' ', _SPACE)})(?![^\W_])", re.IGNORECASE), instead)
    for word, instead in WORDS.items()
]


@dataclass(frozen=True)
class Found:
    """One use of a word."""

    line: int
    word: str
    instead: str


def find(text: str) -> list[Found]:
    """Every use of a word in a text, in the order of its lines."""
    found = [
        Found(text.count("\n", 0, match.start()) + 1, " ".join(match[0].replace("#", " ").split()), instead)
        for pattern, instead in _PATTERNS
        for match in pattern.finditer(text)
    ]
    return sorted(found, key=lambda each: each.line)


def checked_files(root: Path = ROOT) -> Iterator[Path]:
    """Source, pages and build files of the checkout."""
    inside = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*")))
    for path in [*sorted(root.iterdir()), *inside]:
        name = path.relative_to(root).as_posix()
        if path.is_file() and (path.suffix in SUFFIXES or path.name in PROGRAMS) and not name.startswith(LEFT_OUT):
            yield path


def read(path: Path) -> str:
    """The part of a file that is checked."""
    text = path.read_text(encoding="utf-8")
    return "\n## ".join(text.split("\n## ")[:2]) if path.name == CHANGELOG else text


def main() -> None:
    """Print every place."""
    places = [(path.relative_to(ROOT), found) for path in checked_files() for found in find(read(path))]
    for path, found in places:
        sys.stdout.write(f"{path}:{found.line}: {found.word!r}: write {found.instead}\n")
    if places:
        sys.exit(f"{len(places)} uses of words that docs/words.py lists.")


if __name__ == "__main__":
    main()
