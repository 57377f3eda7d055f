"""Clients that post a picture, wait, and post it again on the same connection.

Each is a program: `… URL PICTURE`. It reads a line for each connection, of steps `seconds:query` with blanks between
them: wait so long after the last answer, then post to the URL with this query. For each step it writes a line: the
query, a tab, and the status of the answer, or the error where there was none. A lost request is not sent again.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = [sys.executable, str(HERE / "idle.py")]
CLIENTS = {
    "socket": [*PYTHON, "socket"],
    "requests": [*PYTHON, "requests"],
    "java": ["java", "-Xss512k", str(HERE / "Idle.java")],
    "node": ["node", str(HERE / "idle.mjs")],
}
ARRIVAL = re.compile(r'[0-9.]+:(\d+) - "POST /embed(?:\?(\S*))? HTTP')
"""A line of the access log."""

Step = tuple[float, str]
"""Seconds to wait, and the query to post with."""


@dataclass
class Tally:
    """What became of requests."""

    requests: int = 0
    on_kept_connections: int = 0
    """Those that came from a port from which one had come before, as on a new connection only by chance."""
    lost: Counter[str] = field(default_factory=Counter)
    """Those without an answer, by error."""
    refused: Counter[str] = field(default_factory=Counter)
    """Those with another answer than 200, by status."""


def versions() -> dict[str, str]:
    """The version of each client that is installed."""
    found = {"socket": sys.version.split()[0]}
    if importlib.util.find_spec("requests"):
        found["requests"] = version("requests")
    for name, flag in (("java", "--version"), ("node", "--version")):
        if shutil.which(name):
            said = subprocess.run([name, flag], check=True, capture_output=True, text=True).stdout
            found[name] = said.splitlines()[0]
    return found


def follow(client: str, url: str, picture: Path, plans: Sequence[Sequence[Step]]) -> list[tuple[str, str]]:
    """Run a client with a connection for each plan. The query and the outcome of each step."""
    lines = [" ".join(f"{seconds:.4f}:{query}" for seconds, query in plan) for plan in plans]
    done = subprocess.run(
        [*CLIENTS[client], url, str(picture)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        input="\n".join(lines),
    )
    outcomes = [tuple(line.split("\t", 1)) for line in done.stdout.splitlines()]
    assert len(outcomes) == sum(map(len, plans)), done.stdout
    return outcomes  # type: ignore[return-value]  # pairs


def tallied(outcomes: Sequence[tuple[str, str]], access_log: str = "") -> dict[str, Tally]:
    """What became of the requests of each query; no other client has used these queries."""
    tallies: dict[str, Tally] = {}
    for query, outcome in outcomes:
        tally = tallies.setdefault(query, Tally())
        tally.requests += 1
        if not outcome.isdigit():
            tally.lost[outcome] += 1
        elif outcome != "200":
            tally.refused[outcome] += 1
    known: set[str] = set()
    for port, query in ARRIVAL.findall(access_log):
        if query in tallies:  # else it is another client's
            tallies[query].on_kept_connections += port in known
            known.add(port)
    return tallies
