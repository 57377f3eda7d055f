"""An environment of its own for each peer, under build/, from the locks in peers/."""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
OWN_LOCK = ROOT / "requirements" / "cpu.txt"


def environment(name: str, *, has_own_packages: bool) -> Path:
    """The Python of an environment, made or made anew where its locks have changed.

    Args:
        name: Of the lock `requirements-NAME.txt`.
        has_own_packages: Also what this project needs at run time, so that a peer can be given our session.
    """
    locks = [PEERS / f"requirements-{name}.txt"]
    if has_own_packages:
        locks.insert(0, OWN_LOCK)
    folder = ROOT / "build" / "peers" / name
    python = folder / "bin" / "python"
    stamp = folder / "locks.sha256"
    wanted = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks) + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    sys.stderr.write(f"Making the environment {folder} ...\n")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    for lock in locks:
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", lock]
        subprocess.run(command, check=True)
    stamp.write_text(wanted)
    return python
