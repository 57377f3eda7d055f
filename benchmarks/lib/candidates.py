"""Whom `peers.py` compares: ways to serve the model, and the model without a service."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arcface_api.bench.connection import Address, raw_request
from benchmarks.lib.environments import PEERS, ROOT, environment
from benchmarks.lib.load import embed_request
from benchmarks.lib.service import own_command


@dataclass(frozen=True)
class Peer:
    """A way to serve the model."""

    about: str
    environment: str | None
    """Name of its lock; None: this Python."""
    command: Callable[[str, Path, int], list[str]]
    """(Python, model, port) → what starts it."""
    request: Callable[[Address, bytes], bytes] = embed_request
    engine: str = "onnxruntime"

    @property
    def python(self) -> str:
        """Of its environment, which is made where it is missing."""
        if self.environment is None:
            return sys.executable
        return str(environment(self.environment, has_own_packages=self.environment != "origin"))


def _origin(kind: str) -> Callable[[str, Path, int], list[str]]:
    return lambda python, model, port: [python, str(PEERS / "origin.py"), str(model), str(port), kind]


def _litserve(engine: str) -> Callable[[str, Path, int], list[str]]:
    return lambda python, model, port: [python, str(PEERS / "litserve_server.py"), str(model), str(port), engine]


def _mosec(python: str, _: Path, port: int) -> list[str]:
    options = ["--address", "127.0.0.1", "--timeout", "120000", "--log-level", "warning"]
    return [python, str(PEERS / "mosec_server.py"), "--port", str(port), *options]


def _raw(address: Address, picture: bytes) -> bytes:
    return raw_request(address, "POST", "/inference", picture, {"Content-Type": "image/jpeg"})


SERVICES = {
    "arcface-api": Peer("this service", None, lambda _, model, port: own_command(model, port), engine="own"),
    "origin": Peer("FastAPI, async def, insightface: blocks the event loop", "origin", _origin("async")),
    "origin-threads": Peer("the same with def, in FastAPI's thread pool", "origin", _origin("threads")),
    "litserve": Peer("LitServe, batches of 8, ONNX Runtime as it comes", "litserve", _litserve("onnxruntime")),
    "litserve-own": Peer("LitServe, batches of 8, our session", "litserve", _litserve("own"), engine="own"),
    "mosec": Peer("mosec, batches of 8, ONNX Runtime as it comes", "mosec", _mosec, _raw),
    "mosec-own": Peer("mosec, batches of 8, our session", "mosec", _mosec, _raw, engine="own"),
}
BEFORE = ROOT / "build" / "before" / "src"
"""An earlier state of this service, compared where it is checked out: `git worktree add build/before COMMIT`."""
if BEFORE.is_dir():
    SERVICES["arcface-api-before"] = Peer(
        "this service, before",
        None,
        lambda _, model, port: ["env", f"PYTHONPATH={BEFORE}", *own_command(model, port)],
        engine="own",
    )
BARE = {"bare": "own", "bare-onnxruntime": "onnxruntime"}
"""The model in a loop, without a service: name → engine."""
