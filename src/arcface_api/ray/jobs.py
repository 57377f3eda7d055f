"""A job on Ray Data: the driver lists and pins as any other engine; the parts are embedded by a pool of actors.

    parts that are missing ──▶ a block each ──▶ Worker, Worker, … ──▶ stored, or back to the driver

Ray retries what a lost node was doing, and holds parts back while all actors are busy. One module, because cluster,
actors and what they raise belong to one job.
"""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

# Read when ray is imported. It would report to its makers, print what it logs of its own decisions, and start a cluster
# again where a thread still waits when a job was interrupted.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arcface_api.bulk.engine import PartsEngine, StoredPart
from arcface_api.bulk.listing import Slice, read_listing, slices
from arcface_api.bulk.parts import Job, Parts
from arcface_api.bulk.places import is_url
from arcface_api.bulk.run import what_is_left
from arcface_api.cpus import available_cpus
from arcface_api.errors import ArcFaceError, BulkError
from arcface_api.ray.worker import Model, Starts, Task, Worker
from arcface_api.settings import Settings

CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
"""After so long a wait for a node, a line says what is waited for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """What an actor asks for."""

    cpus: int
    gpus: int
    actors: int
    """How many the cluster has room for now."""


@asynccontextmanager
async def open_ray(settings: Settings, chosen: dict[str, Any], address: str | None) -> AsyncIterator[PartsEngine]:
    """Connect to a cluster, and load the model on one of its nodes, which says what makes the embeddings.

    `chosen`: as `open_local` takes it. `address`: of a cluster that this machine belongs to, or `auto`; None: a cluster
    of this machine alone, which ends with the job.

    Raises BulkError if there is no such cluster, or what `open_local` raises happens on its node.
    """
    with _connected(address):
        share = _share(settings)
        own = {"threads": share.cpus, "decode_threads": settings.decode_threads or share.cpus}
        model = Model(settings=_everywhere(settings).model_copy(update=own), chosen=chosen)
        first = ray.remote(Worker).options(num_cpus=share.cpus, num_gpus=share.gpus).remote(model)
        with _explained():
            facts, versions = await _patiently(first.facts.remote(), share)
        ray.kill(first)

        async def embed(parts: Parts, job: Job, columns: pa.Schema) -> AsyncGenerator[StoredPart]:
            task = Task(
                model=model,
                facts=facts,
                versions=versions,
                columns=columns,
                job=job,
                out=_shared(parts),
                starts=_starts(),
            )
            missing = parts.missing(job)
            wanted = [each for each in slices(parts.lines(), job.part_rows) if each.number in missing]
            if not wanted:  # killed behind the last part
                return
            found = {each.number: each for each in wanted}
            with _explained(parts):
                rows = iter(_dataset(parts, wanted, task, share).iter_rows())
                while (row := await asyncio.to_thread(next, rows, None)) is not None:
                    if unreadable := set(json.loads(row["unreadable"])):
                        _check_seen(parts, found[row["number"]], unreadable, row["node"])
                    content = row["rows"]
                    yield StoredPart(
                        number=row["number"],
                        inputs=row["inputs"],
                        errors=row["errors"],
                        rows=None if content is None else pa.ipc.open_stream(content).read_all(),
                    )

        yield PartsEngine(facts=facts, parts=embed)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    at_term = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs as an error, it raises as well
    try:
        if address is not None and address != "auto":
            _check_reachable(address)
        if address is None:
            ray.init("local", num_cpus=available_cpus(), include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as error:  # noqa: BLE001  # of many classes
        raise BulkError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined: {_first_line(error)} Run the command"
            " on a machine of the cluster, or as `ray job submit -- arcface-api embed …`, with the cluster's versions"
            " of Python and Ray; `ray status` shows the cluster."
        ) from None
    try:
        signal.signal(signal.SIGTERM, at_term)  # Ray has set its own
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises OSError or ValueError at once, where Ray would try for minutes."""
    if "://" in address:
        raise ValueError(
            "it is an address of Ray Client, through which Ray Data does not run. Name host:port, or auto."
        )
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _share(settings: Settings) -> Share:
    """A whole node for each actor, or its part of a node with several GPUs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(
        settings.device in ("cuda", "tensorrt") or (settings.device == "auto" and any("GPU" in n for n in nodes))
    )
    fit = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    if not fit and settings.threads is None:
        raise BulkError(
            f"No node of the Ray cluster has a {'GPU' if gpus else 'CPU'} now. Start nodes (`ray status` shows them)."
            " Or name --threads, the CPUs that each actor asks for: a cluster that scales itself then starts nodes."
        )
    cpus = settings.threads or max(1, int(min(node["CPU"] // max(1, gpus and node["GPU"]) for node in fit)))
    actors = sum(int(min(node["CPU"] // cpus, node.get("GPU", 0) if gpus else node["CPU"])) for node in fit)
    return Share(cpus, gpus, actors)


def _everywhere(settings: Settings) -> Settings:
    """Settings whose paths do not begin at this process's folder."""
    changed: dict[str, Any] = {}
    if Path(settings.pack).exists():
        changed["pack"] = str(Path(settings.pack).absolute())
    for name in ("models_dir", "cache_dir"):
        if (path := getattr(settings, name)) is not None:
            changed[name] = path.absolute()
    return settings.model_copy(update=changed)


async def _patiently(result: Any, share: Share) -> Any:
    waiting = asyncio.ensure_future(asyncio.wrap_future(result.future()))
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE_SECONDS)
    if not done:
        _log.warning(
            "Waiting for a node with %d CPUs%s, or for its model. `ray status` shows what is asked for.",
            share.cpus,
            " and a GPU" if share.gpus else "",
        )
    return await waiting


def _starts() -> Any:
    """An actor beside the driver, with which it ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Starts).options(num_cpus=0, scheduling_strategy=here).remote()


def _shared(parts: Parts) -> str | None:
    """Where actors store parts themselves; None: a file's, which are the driver's."""
    if not parts.are_output:
        return None
    place = str(parts.out)
    return place if is_url(place) else f"{Path(place).absolute()}/"


def _dataset(parts: Parts, wanted: list[Slice], task: Task, share: Share) -> Any:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with parts.open_inputs() as listing:
        blocks = [ray.put(_block(each, listing if task.out is None else None)) for each in wanted]
    least = max(1, min(share.actors, len(blocks)))
    pool = ray.data.ActorPoolStrategy(min_size=least, max_size=len(blocks), max_tasks_in_flight_per_actor=2)
    return ray.data.from_arrow_refs(blocks).map(
        cast("Any", Worker),
        fn_constructor_args=(task.model, task),
        compute=pool,
        num_cpus=share.cpus,
        num_gpus=share.gpus,
    )


def _block(part: Slice, listing: Any) -> pa.Table:
    """A row; with the part's lines, where the listing is the driver's alone."""
    lines = b""
    if listing is not None:
        listing.seek(part.begin)
        lines = part.holder + listing.read(part.end - part.begin)
    return pa.table(
        {
            "number": [part.number],
            "holder": pa.array([part.holder], pa.large_binary()),
            "begin": [part.begin],
            "end": [part.end],
            "lines": pa.array([lines], pa.large_binary()),
        }
    )


def _check_seen(parts: Parts, part: Slice, unreadable: set[int], node: str) -> None:
    """Raises BulkError if this machine can read a picture that a node could not."""
    with parts.open_inputs() as listing:
        listing.seek(part.begin)
        lines = (part.holder + listing.read(part.end - part.begin)).splitlines()
    for found in read_listing(lines, unreadable.__contains__, max_bytes=2**62):
        try:
            found.read()
        except ArcFaceError:
            continue
        raise BulkError(
            f"The node {node} cannot read {found.id}, which this machine can. Every node must see the sources"
            " under the same paths: mount the same file system on all of them, or keep the pictures in object storage"
            f" and name its URL. {what_is_left(parts)}"
        )


@contextmanager
def _explained(parts: Parts | None = None) -> Iterator[None]:
    """Make a sentence of what Ray raises."""
    left = parts and what_is_left(parts)
    try:
        yield
    except ArcFaceError:
        raise
    except Exception as error:  # noqa: BLE001  # of many classes, and with the actor's error inside
        ours = _ours(error)
        said = str(ours) if ours else f"Ray could not go on: {_first_line(error)} Its logs are in /tmp/ray."
        raise BulkError(f"{said} {left}" if left else said) from (None if ours else error)


def _ours(error: BaseException | None) -> ArcFaceError | None:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, ArcFaceError):
            return error
        seen.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _first_line(error: Exception) -> str:
    return f"{next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip('.')}."
