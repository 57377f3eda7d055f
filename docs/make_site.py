"""Builds the documentation as a site of files, which needs no internet: `make docs`, then open build/site/index.html.

    README.md, docs/ and all that they link to ──copy──▶ build/site-source ──zensical──▶ build/site

The copy keeps the repository's folders, so that a link is the same on the site and in the repository. A link that leads
nowhere fails the build.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "build" / "site"
START = ("README.md", "README.ru.md", "docs/site.css")
_LINK = re.compile(r"""\]\(([^)\s#]+)(?:#[^)\s]*)?\)|(?:src|href)="([^"#]+)(?:#[^"]*)?\"""")
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LOADED = re.compile(
    r"""<(?:a|base)\b[^>]*>|\b(?:src|srcset|href|poster)\s*=\s*["']?((?:https?:)?//[^\s"'>]+)"""
    r"""|(?:url\(|@import|\bimport\s*\(?)\s*["']?((?:https?:)?//[^\s"')]+)"""
)
"""What a page loads from elsewhere; links for readers (`<a href>`) may lead there."""
_ELSEWHERE = re.compile(r"https?://|mailto:")


def main() -> int:
    """Build the site; returns an exit status."""
    pages = [*(ROOT / name for name in START), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/adr/*.md")]
    lost = list(_copy(pages))
    if lost:
        print("These links lead nowhere:", *lost, sep="\n  ", file=sys.stderr)  # noqa: T201  # a command line program
        return 1
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        return status
    pages = [path for suffix in ("html", "css") for path in SITE.rglob(f"*.{suffix}")]
    foreign = [
        f"{page.name}: {one or two}" for page in pages for one, two in _LOADED.findall(_shown(page)) if one or two
    ]
    if foreign:
        print("These would be loaded from elsewhere:", *foreign, sep="\n  ", file=sys.stderr)  # noqa: T201
    return bool(foreign)


def _shown(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"<(code|pre)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)


def _copy(pages: list[Path]) -> Iterator[str]:
    """Copy these pages and, again and again, what they link to. Yields links that lead to no file."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    seen = set(pages)
    while pages:
        page = pages.pop()
        copy = SOURCE / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, copy)
        if page.suffix != ".md":
            continue
        for link in _links(page):
            target = (page.parent / link).resolve()
            if not target.is_file() or ROOT not in target.parents:
                yield f"{page.relative_to(ROOT)}: {link}"
            elif target not in seen:
                seen.add(target)
                pages.append(target)


def _links(page: Path) -> Iterator[str]:
    """The relative links of a page."""
    for markdown, html in _LINK.findall(_CODE.sub("", page.read_text())):
        link = markdown or html
        if not _ELSEWHERE.match(link):
            yield link


if __name__ == "__main__":
    sys.exit(main())
