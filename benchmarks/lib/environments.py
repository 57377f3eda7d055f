"""An environment of its own for each peer, under build/peers, from the locks in peers/."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"


def environment(name: str, *, has_own_packages: bool) -> Path:
    """The Python of an environment, which is made if it is missing or its locks have changed.

    Args:
        name: Of the lock `requirements-NAME.txt`.
        has_own_packages: Also what this project needs at run time, so that a peer can be given our session.
    """
    folder = ROOT / "build" / "peers" / name
    locks = [*([ROOT / "requirements" / "cpu.txt"] if has_own_packages else []), PEERS / f"requirements-{name}.txt"]
    command = [ROOT / "requirements" / "make-environment", "--packages-only", folder, sys.executable, *locks]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "bin" / "python"
