"""Promises of `docs/words.py`: it finds each word, in prose and in names, and nothing that only looks like one."""

from pathlib import Path

import pytest

import words

EXAMPLES = {
    "tell": "It can tell them apart.",
    "tells": "`/health` tells why.",
    "telling": "By telling the caller.",
    "told": "def test_a_caller_is_told() -> None:",
    "Told": "Told from the content.",
    "mend": "Mend it.",
    "mended": "what can be mended",
    "by hand": "measured by\n# hand",
    "of late": "What was seen of late.",
    "lest": "lest it fail",
    "whoever": "whoever comes",
    "by company": "faces by company",
    "that or no start": "`cpu`: that or no start.",
    "anew": "made anew",
    "drawn faces": "on drawn faces",
    "stands in for": "It stands in for antelopev2.",
}


@pytest.mark.parametrize(("word", "text"), EXAMPLES.items())
def test_each_word_is_found(word: str, text: str) -> None:
    (found,) = words.find(f"First line.\n{text}\n")
    assert (found.line, found.word.lower()) == (2, word.lower())
    assert found.instead


def test_every_entry_has_an_example() -> None:
    found = {use.instead for text in EXAMPLES.values() for use in words.find(text)}
    assert found == set(words.WORDS.values())


@pytest.mark.parametrize("text", ["amend recommended", "intelligent", "lesson", "late", "of latency", "retold_x2x"])
def test_other_words_are_left_alone(text: str) -> None:
    assert words.find(text) == []


def test_which_files_are_checked(tmp_path: Path) -> None:
    for name in ("src/a.py", "src/picture.png", "docs/words.py", "benchmarks/results/b.md", "README.ru.md", "Makefile"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.relative_to(tmp_path).as_posix() for path in words.checked_files(tmp_path)] == ["Makefile", "src/a.py"]


def test_released_sections_of_the_changelog_are_left_alone(tmp_path: Path) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## Next\n\nNew.\n\n## 0.1\n\nWhoever.\n")
    assert words.read(changelog) == "# Changelog\n\n## Next\n\nNew.\n"
