"""Checks of how the model really runs: of the service that runs, or loaded here, in a process of its own."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from arcface_api.doctor.finding import Finding, Unknown, note, ok, problem
from arcface_api.doctor.gpu import driver_version, has_access
from arcface_api.doctor.installation import is_installed
from arcface_api.doctor.service import ask_port
from arcface_api.doctor.storage import locate_pack
from arcface_api.doctor.subject import Subject
from arcface_api.errors import ArcFaceError, PackError
from arcface_api.packs import InstalledPack
from arcface_api.settings import Settings
from arcface_api.wording import counted

LOAD_SECONDS = 1800.0
"""The first start with a model may compile it for minutes; TensorRT does."""
_BFLOAT16 = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True)
class Loaded:
    """How the model runs; `facts` are those of `/info`."""

    facts: Mapping[str, Any]
    where: str
    """Where it was found out, in words."""


@dataclass(frozen=True)
class NotLoaded:
    """Why the model cannot run, in the words of the error."""

    why: str
    remedy: str = ""


def load(subject: Subject) -> Loaded | NotLoaded:
    """Ask the service that runs, or load the model; raises `Unknown` if neither is possible."""
    running = subject.once(ask_port)
    if running is not None and running.is_ours and running.info:
        return Loaded(running.info, "as the running service states")
    if subject.is_quick:
        raise Unknown("the model was not loaded (--quick)")
    pack = subject.once(locate_pack)
    if isinstance(pack, PackError):
        raise Unknown("there is no pack to load")
    return _load_in_process(pack, subject.settings)


def model(subject: Subject) -> Iterator[Finding]:
    """State what really runs, and why nothing faster does."""
    loaded = subject.once(load)
    if isinstance(loaded, NotLoaded):
        yield problem(loaded.why, loaded.remedy)
        return
    facts = loaded.facts
    lanes = f"{counted(facts['lanes'], 'lane')}{' and a wide one' * facts['has_wide_lane']}"
    threads = counted(facts["threads"], "thread")
    yield ok(
        f"{facts['model']} on {facts['provider']} in {facts['precision']}, {threads}, {lanes}, batches"
        f" of at most {max(facts['batch_sizes'])}; cosine to float32 {facts['self_test_cosine']:.5f} ({loaded.where})."
    )
    if facts["doubt"]:
        yield problem(facts["doubt"], "arcface-api packs check finds out how to feed the model.")
    has_gpu = is_installed("onnxruntime-gpu") and driver_version(subject) is not None and has_access(subject)
    is_on_gpu = facts["provider"] in ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    if has_gpu and not is_on_gpu and subject.settings.device == "auto":
        yield problem(
            f"There is a GPU, and it is not used: {facts['reason']}.",
            "Set ARCFACE_DEVICE=cuda to see at the start why not, or ARCFACE_DEVICE=cpu if that is what you want.",
        )
    elif facts["reason"]:
        yield note(f"Why nothing faster is used: {facts['reason'].rstrip('.')}.")


def bfloat16(subject: Subject) -> Iterator[Finding]:
    """Find out whether the CPU's fast arithmetic is used, and why not."""
    flags = " and ".join(sorted(subject.flags & _BFLOAT16))
    settings = subject.settings
    if not flags:
        yield ok("This CPU has no bfloat16 instructions.")
        return
    if not is_installed("openvino") and is_installed("onnxruntime-gpu"):
        yield ok(f"This CPU has {flags}, which an installation for GPUs does not use.")
        return
    if not is_installed("openvino"):
        yield problem(
            f"This CPU has {flags}, but the package openvino, which uses it, is not installed. The model runs several"
            " times slower than it could.",
            "pip install --upgrade 'arcface-api[cpu]'",
        )
        return
    if settings.device in ("cuda", "tensorrt") or settings.precision not in ("auto", "bfloat16"):
        yield note(
            f"This CPU has {flags}, which device={settings.device} and precision={settings.precision} do not use.",
            "If the CPU is to be used at its fastest, set ARCFACE_PRECISION=auto.",
        )
        return
    loaded = subject.once(load)
    if isinstance(loaded, NotLoaded):
        raise Unknown("the model cannot be loaded")
    facts = loaded.facts
    if facts["precision"] in ("bfloat16", "float16"):
        yield ok(f"This CPU has {flags}; {facts['provider']} computes in {facts['precision']}.")
    elif "OpenVINO in bfloat16 is not used" in (facts["reason"] or ""):
        yield problem(
            f"This CPU has {flags}, and OpenVINO cannot use it: {facts['reason']}.",
            "pip install --upgrade 'arcface-api[cpu]'; delete ARCFACE_CACHE_DIR's folder to try again.",
        )
    else:
        why = f": {facts['reason'].rstrip('.')}" if facts["reason"] else ""
        used = f"{facts['provider']} in {facts['precision']}"
        yield note(f"This CPU has {flags}, and {used} is used{why}.")


# ── a process of its own: a crash in a library, or the kernel's end of a process without memory, is a finding ──────


def _load_in_process(pack: InstalledPack, settings: Settings) -> Loaded | NotLoaded:
    context = multiprocessing.get_context("spawn")  # nothing of this process's threads and libraries
    ours, theirs = context.Pipe(duplex=False)
    with _log_file() as log:
        process = context.Process(target=_load, args=(pack, settings, log, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            if not ours.poll(LOAD_SECONDS):
                return NotLoaded(
                    f"The model was not loaded after {LOAD_SECONDS:g} s.", "Look at what keeps the machine busy."
                )
            answer = ours.recv()
        except EOFError:
            process.join()
            return _ended(process.exitcode or 0, log)
        finally:
            process.kill()
            process.join()
    if isinstance(answer, str):
        what, _, remedy = answer.partition(". ")
        return NotLoaded(f"The model cannot be loaded: {what.rstrip('.')}.", remedy or "Read the sentence before.")
    facts, seconds, rss_bytes = answer
    return Loaded(facts, f"loaded in {seconds:.1f} s, {rss_bytes / 1e6:.0f} MB in memory")


@contextmanager
def _log_file() -> Iterator[Path]:
    """Where the process writes; nowhere, if there is no folder for temporary files."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="arcface-api-doctor-")
    except OSError:
        yield Path(os.devnull)
        return
    with folder as name:
        yield Path(name) / "log"


def _ended(status: int, log: Path) -> NotLoaded:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = f" Its last words: {lines[-1]}" if lines else ""
    if -status == signal.SIGKILL:
        return NotLoaded(
            "The process that loaded the model was killed: memory most likely ran out.",
            "Give the service more memory (docs/operations.md), or choose a smaller pack.",
        )
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return NotLoaded(
        f"The process that loaded the model {how}.{last}",
        "A library probably does not fit this machine: install arcface-api's extra again in a new environment. Or"
        " memory ran out: see `memory`.",
    )


def _load(pack: InstalledPack, settings: Settings, log: Path, report: Connection) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    started = time.monotonic()
    try:
        from arcface_api.api.app import create_app  # noqa: PLC0415  # takes seconds, and may be what fails

        app = create_app(pack, settings)
    except ArcFaceError as error:
        report.send(str(error))
    except Exception as error:  # noqa: BLE001  # whatever it is, the service would fail, too
        report.send(f"{type(error).__name__}: {error}")
    else:
        seconds, rss_bytes = time.monotonic() - started, psutil.Process().memory_info().rss
        report.send((app.info.model_dump(mode="json"), seconds, rss_bytes))
