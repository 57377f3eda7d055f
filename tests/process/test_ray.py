"""Promises of the extra `ray`: a cluster gives the rows that one process gives, whatever is killed in the middle, and
Ray Serve answers as `arcface-api serve` does."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import onnx
import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet
from test_contract import (  # noqa: F401  # its promises are collected here, too, with the fixture below
    HEADERS,
    PICTURE,
    exact_service,
    test_body_is_to_the_byte_what_it_was_before_the_recipe,
    test_code_is_an_open_string_with_documented_values,
    test_description_is_the_one_in_docs,
    test_every_header_of_an_answer_is_documented,
    test_open_pack_keeps_its_fingerprint_and_recipes,
    test_operation_ids_name_the_functions_of_generated_clients,
    test_other_forms_hold_the_same_numbers,
)

from process.test_bulk_killed import make_pictures
from serving import Service
from tiny_models import linear_model

pytestmark = [pytest.mark.once, pytest.mark.timeout(600)]
TESTS = Path(__file__).parents[1]
PICTURES = 300
PATIENCE_SECONDS = 240
SHARES = ["--part-rows", "10", "--threads", "1"]


GATED = """
import os, time

stat = os.stat
def gated(path, *arguments, **options):
    name = os.path.basename(path) if isinstance(path, str) else ""
    while "00150.jpg" <= name <= "99999.jpg" and os.path.exists({gate!r}):
        time.sleep(0.02)
    if name.startswith("unseen"):
        raise FileNotFoundError(2, "No such file", path)
    return stat(path, *arguments, **options)
os.stat = gated
"""
"""In each process of a node: while a file is there, the second half of the pictures takes for ever to read; and some
pictures are not there, as in a folder that is not mounted."""

OTHER_FACTS = """
import sys
from dataclasses import replace
from arcface_api.bulk.parts import Job
from arcface_api.errors import BulkError
from arcface_api.ray.worker import Model, Task, Worker
from arcface_api.settings import read_settings

settings = read_settings(pack=sys.argv[1], device="cpu", precision="float32", threads=1, lanes=1)
model = Model(settings=settings, chosen={})
facts, versions = Worker(model).facts()
common = {"model": model, "columns": None, "job": Job({}, 0, 0, 1), "out": None, "starts": None}
assert Worker(model, Task(facts=facts, versions=versions, **common)).facts() == (facts, versions)
for others in (
    {"facts": replace(facts, fingerprint="other"), "versions": versions},
    {"facts": replace(facts, precision="bfloat16"), "versions": versions},
    {"facts": facts, "versions": {**versions, "version of onnxruntime": "0.1"}},
):
    try:
        Worker(model, Task(**others, **common)).facts()
    except BulkError as error:
        print(error)
"""


def until(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (answer := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return answer


def name_of(process: psutil.Process) -> str:
    """As Ray has changed it."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


@dataclass(frozen=True)
class Cluster:
    process: "subprocess.Popen[str]"
    address: str
    raylets: list[int]
    environment: dict[str, str]
    """Of drivers."""
    gate: Path
    """While it is there, no job can end."""
    jobs: "list[subprocess.Popen[str]]" = field(default_factory=list)
    services: "list[RayService]" = field(default_factory=list)

    def embed(self, folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start a job in the folder."""
        command = [sys.executable, "-m", "arcface_api", "embed", *map(str, arguments)]
        pipe = subprocess.PIPE
        job = subprocess.Popen(command, cwd=folder, env=self.environment, stdout=pipe, stderr=pipe, text=True)
        self.jobs.append(job)
        return job

    def on_ray(self, folder: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
        return self.embed(folder, *arguments, "--engine", "ray", "--address", self.address)

    def at_work(self, node: int) -> bool:
        """Whether one of the two nodes embeds a part."""
        children = psutil.Process(self.raylets[node]).children(recursive=True)
        return any("MapWorker(Map(Worker)).submit" in name_of(each) for each in children)

    def wait_for_the_middle(self, job: "subprocess.Popen[str]", parts: Path) -> None:
        """Until half of the parts are there, and both nodes are at work on others."""

        def found() -> bool:
            assert job.poll() is None, job.communicate()
            return len(list(parts.glob("part-*.parquet"))) > 10 and self.at_work(0) and self.at_work(1)

        until(found)
        assert len(list(parts.glob("part-*.parquet"))) < PICTURES // 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes and a head; all their processes end with the module, even if a test fails."""
    home = tmp_path_factory.mktemp("home")
    # Without the mark by which the run ends what it leaves: this process ends everything of Ray itself, also what
    # has renamed itself, and with that its environment. It sees the end of the run on stdin.
    environment = {key: found for key, found in os.environ.items() if not key.startswith(("ARCFACE_", "TEST_RUN"))}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "ARCFACE_LANES": "1"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    (home / "faults").mkdir()
    (home / "faults" / "sitecustomize.py").write_text(GATED.format(gate=str(home / "gate")))
    paths = [str(home / "faults"), os.environ.get("PYTHONPATH", "")]
    of_nodes = environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(TESTS / "ray_cluster.py")]
    log = (home / "cluster.log").open("w")
    pipe = subprocess.PIPE
    with log, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=of_nodes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / "cluster.log").read_text()
        started = Cluster(process, environment=environment, gate=home / "gate", **json.loads(line))
        yield started
        for job in started.jobs:
            job.kill()
            job.communicate()
        process.stdin.close()
        process.wait(PATIENCE_SECONDS)
    assert process.returncode == 0, (home / "cluster.log").read_text()


# ── Ray Serve ──────────────────────────────────────────────────────────────────────────────────────────────────────


class RayService(httpx.Client):
    """A client of Ray Serve, and the process that deploys to it."""

    def __init__(self, cluster: Cluster) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, str(TESTS / "ray_service.py"), cluster.address, str(port)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._driver = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True, env=cluster.environment
        )
        self._serving: str | None = None
        super().__init__(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def deploy(self, pack: Path, **settings: Any) -> str:
        """Serve a pack, unless that is what is served."""
        files = sorted(pack.iterdir()) if pack.is_dir() else [pack] if pack.exists() else []
        content = hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
        arguments = {"pack": str(pack), "device": "cpu", "precision": "float32", **settings}
        wanted = json.dumps({**arguments, "pack": f"{pack.name} {content}"})
        if self._serving == wanted:
            return "serving"
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(f"{json.dumps(arguments)}\n")
        self._driver.stdin.flush()
        said = self._driver.stdout.readline().rstrip("\n")
        self._serving = wanted if said == "serving" else None
        return said

    def close(self) -> None:
        super().close()
        assert self._driver.stdin is not None
        self._driver.stdin.close()  # both may be repeated
        self._driver.wait(PATIENCE_SECONDS)
        assert self._driver.stdout is not None
        self._driver.stdout.close()


@pytest.fixture(scope="module")
def ray_serve(cluster: Cluster) -> Iterator[RayService]:
    service = RayService(cluster)
    cluster.services.append(service)
    yield service
    service.close()


@pytest.fixture
def run_service(ray_serve: RayService) -> Callable[..., httpx.Client]:
    """Where the tests of the contract ask for a service, this is on Ray Serve."""

    def run(pack: Path, **settings: object) -> httpx.Client:
        assert ray_serve.deploy(pack, **settings) == "serving"
        return ray_serve

    return run


def test_headers_are_those_of_the_contract_but_for_the_connection(
    exact_service: Service,  # noqa: F811  # the fixture
) -> None:
    answer = exact_service.post("/embed", files={"file": PICTURE}, headers={"X-Request-ID": "mine"})
    assert set(answer.headers) == HEADERS | {"x-embedding-recipe", "x-request-id"}
    assert answer.headers["x-request-id"] == "mine"
    fixed = {"content-type": "application/json", "cache-control": "no-store", "vary": "Accept", "x-alignment": "none"}
    assert fixed.items() <= dict(answer.headers).items()


def test_problems_and_probes_are_those_of_the_service(service: Service) -> None:
    assert service.post("/embed", files={"file": b""}).json()["code"] == "image_empty"
    assert service.get("/nothing").json()["code"] == "not_found"
    assert service.get("/health").json()["status"] == "ok"
    assert service.get("/info").json()["threads"] == 1  # as many as the replica has CPUs


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algin": "auto"}, "algin is no setting. Arguments are settings by their names"),
        ({"align": "x"}, "is not allowed"),
        ({"port": 1, "workers": 2}, "port, workers has no effect behind Ray Serve"),
    ],
)
def test_wrong_arguments_are_refused(
    ray_serve: RayService, tiny_recogniser: Path, settings: dict[str, Any], sentence: str
) -> None:
    assert sentence in ray_serve.deploy(tiny_recogniser, **settings)


# ── Ray Data ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """A folder with crops, some damaged, a model, and what one process makes of them."""
    for service in cluster.services:
        service.close()  # a replica has a node's only CPU
    folder = tmp_path_factory.mktemp("work")
    make_pictures(folder / "crops", PICTURES)
    onnx.save(linear_model(112, 512), folder / "tiny.onnx")
    rows = ["path", "gone.jpg", *(f"crops/{number:05}.jpg" for number in range(PICTURES))]
    (folder / "list.csv").write_text("\n".join(rows))
    job = cluster.embed(folder, "list.csv", "--pack", "tiny.onnx", "--out", "expected.parquet")
    _, said = job.communicate()
    assert job.returncode == 0, said
    return folder


def same(found: Path, expected: Path) -> bool:
    """Row for row, in their order, bit for bit."""
    wanted: pa.Table = parquet.read_table(expected)
    return bool(parquet.read_table(found).replace_schema_metadata().equals(wanted.replace_schema_metadata()))


def test_two_nodes_give_the_vectors_of_one_process_bit_for_bit(cluster: Cluster, work: Path) -> None:
    cluster.gate.touch()
    job = cluster.on_ray(work, "list.csv", "--pack", "tiny.onnx", "--out", "two.parquet", *SHARES)
    cluster.wait_for_the_middle(job, work / "two.parquet.parts")
    cluster.gate.unlink()
    said, problems = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 0, problems
    assert f"{PICTURES + 1} rows" in said
    assert same(work / "two.parquet", work / "expected.parquet")
    assert not (work / "two.parquet.parts").exists()


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_driver_that_is_ended_loses_nothing(cluster: Cluster, work: Path, ending: signal.Signals, status: int) -> None:
    command = ["list.csv", "--pack", "tiny.onnx", "--out", f"{ending.name}.parquet", *SHARES]
    cluster.gate.touch()
    job = cluster.on_ray(work, *command)
    cluster.wait_for_the_middle(job, work / f"{ending.name}.parquet.parts")
    job.send_signal(ending)
    _, problems = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == status, problems
    if ending != signal.SIGKILL:
        assert f"What is done is kept in {ending.name}.parquet.parts: the same command goes on there." in problems
    cluster.gate.unlink()
    job = cluster.on_ray(work, *command)
    said, problems = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 0, problems
    assert "were there from an earlier start" in said
    assert same(work / f"{ending.name}.parquet", work / "expected.parquet")


@pytest.mark.parametrize("out", ["large.parquet", "large/"])
def test_vector_that_float16_cannot_hold_is_an_error(cluster: Cluster, work: Path, out: str) -> None:
    onnx.save(linear_model(112, 512, gain=1e5), work / "large.onnx")
    (work / "few.csv").write_text("\n".join(["path", *(f"crops/{number:05}.jpg" for number in range(20))]))
    job = cluster.on_ray(work, "few.csv", "--pack", "large.onnx", "--dtype", "float16", "--out", out, *SHARES)
    said, problems = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 0, problems
    assert "19  embedding_invalid" in said
    assert "above 65,504, which float16 cannot hold" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pack", "nowhere"], "On the node "),
        (["--pack", "tiny.onnx", "--include-attributes"], "has no models for age, gender and head pose"),
    ],
)
def test_what_a_node_lacks_is_a_sentence(cluster: Cluster, work: Path, arguments: list[str], sentence: str) -> None:
    job = cluster.on_ray(work, "crops", "--out", "lacks.parquet", *arguments)
    _, said = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 1
    assert sentence in said
    assert "Traceback" not in said
    assert not (work / "lacks.parquet.parts").exists()


@pytest.mark.parametrize("out", ["blind.parquet", "blind/"])
def test_node_that_does_not_see_a_picture_ends_the_job(cluster: Cluster, work: Path, out: str) -> None:
    """A row with an error would look as if the picture were not there."""
    some = work / "crops/00000.jpg"
    (work / "unseen.jpg").write_bytes(some.read_bytes())
    (work / "mixed.csv").write_text(f"path\ngone.jpg\n{some}\nunseen.jpg\n")
    job = cluster.on_ray(work, "mixed.csv", "--pack", "tiny.onnx", "--out", out, "--threads", "1")
    _, said = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 1
    assert "cannot read unseen.jpg, which this machine can. Every node must see the sources under the same" in said
    parts = work / ("blind" if out == "blind/" else f"{out}.parts")
    assert not list(parts.glob("part-*"))


def test_killed_node_loses_nothing(cluster: Cluster, work: Path) -> None:
    """Into a folder, whose parts the actors write themselves. The last test of the cluster, which has one node then."""
    cluster.gate.touch()
    job = cluster.on_ray(work, "list.csv", "--pack", "tiny.onnx", "--out", "faces/", *SHARES)
    cluster.wait_for_the_middle(job, work / "faces")
    assert cluster.process.stdin is not None
    assert cluster.process.stdout is not None
    cluster.process.stdin.write("kill\n")
    cluster.process.stdin.flush()
    assert cluster.process.stdout.readline() == "killed\n"
    cluster.gate.unlink()
    said, problems = job.communicate(timeout=PATIENCE_SECONDS)
    assert job.returncode == 0, problems
    assert f"faces/: {PICTURES + 1} rows" in said
    assert same(work / "faces", work / "expected.parquet")
    assert {path.name for path in (work / "faces").iterdir() if path.name.startswith("_")} == {"_summary.json"}


# ── without a cluster ──────────────────────────────────────────────────────────────────────────────────────────────


def run_embed(*arguments: str, before: str = "pass") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"{before}; from arcface_api.cli import main; main()", "embed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def test_node_that_would_make_other_embeddings_is_an_error(tiny_recogniser: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHER_FACTS, str(tiny_recogniser)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fingerprint, precision, version = done.stdout.splitlines()
    assert re.match(r"On the node .*: The fingerprint is \w+ there and other on the node that began, so", fingerprint)
    assert "The precision is float32 there and bfloat16 on" in precision
    assert "The version of onnxruntime is " in version


def test_missing_ray_is_a_sentence(tmp_path: Path) -> None:
    out = str(tmp_path / "x.parquet")
    done = run_embed(".", "--out", out, "--engine", "ray", before="import sys; sys.modules['ray'] = None")
    assert done.returncode == 1
    assert "--engine ray needs Ray, which is not installed. Install the extra ray, on every node" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001"])
def test_missing_cluster_is_a_sentence(tmp_path: Path, address: str) -> None:
    """Not `auto`, which finds whatever cluster this machine has."""
    (tmp_path / "a.jpg").touch()
    done = run_embed(
        str(tmp_path), "--out", str(tmp_path / "x.parquet"), "--engine", "ray", "--address", address, "--pack", "open"
    )
    assert done.returncode == 1
    assert f"The Ray cluster at {address} cannot be joined: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.parquet.parts").exists()
