"""The check of the places that have the pack."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from arcface_api.doctor.finding import Finding, note, ok, problem
from arcface_api.doctor.storage import locate_pack, registered
from arcface_api.doctor.subject import Subject
from arcface_api.errors import PackError
from arcface_api.packs import reach

SOURCE_SECONDS = 3.0
"""Longest silence of a source."""


@dataclass(frozen=True)
class Reached:
    """A source that was contacted."""

    name: str
    """Its host."""
    failure: str | None
    """Why it cannot be used; None if it answers."""
    skew_seconds: float | None
    """How far this machine's clock is ahead of the source's, if it states the time."""


def reach_sources(subject: Subject) -> tuple[Reached, ...]:
    """Ask each host of the wanted pack for one byte, all at once: of an archive, else of a file."""
    manifest = registered(subject)
    if not subject.uses_network or manifest is None:
        return ()
    by_host = dict[str, list[str]]()
    for source in manifest.sources:
        by_host.setdefault(source.url.split("/")[2], []).append(source.url)
    with ThreadPoolExecutor(max(1, len(by_host))) as pool:
        return tuple(pool.map(_ask, by_host, by_host.values()))


def _ask(host: str, urls: Sequence[str]) -> Reached:
    failures = list[str]()
    for url in urls:
        try:
            date = reach(url, SOURCE_SECONDS)
        except PackError as error:
            failures.append(str(error))
            if "cannot be reached" in failures[-1]:  # nor can the others
                break
        else:
            return Reached(host, None, None if date is None else (datetime.now(UTC) - date).total_seconds())
    return Reached(host, failures[0], None)


def sources(subject: Subject) -> Iterator[Finding]:
    """Report which sources answer; needed only where the pack is not installed."""
    reached, is_installed = subject.once(reach_sources), not isinstance(subject.once(locate_pack), PackError)
    good = [each.name for each in reached if each.failure is None]
    is_needed = not is_installed and subject.settings.pull
    remedy = (
        "Check HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE, or set ARCFACE_PACK_MIRROR to a server that can be reached;"
        " arcface-api packs import installs files that you bring."
    )
    if failures := "\n".join(each.failure for each in reached if each.failure is not None):
        if "certificate" in failures.lower():
            remedy += " Certificates also seem invalid to a machine with a wrong clock."
        yield (problem if is_needed and not good else note)(failures, remedy)
    if good:
        yield ok(f"{', '.join(good)} can be reached.")
    elif not reached:
        why = "the pack has none" if subject.uses_network else "--no-network"
        yield ok(f"No source was contacted: {why}.")
