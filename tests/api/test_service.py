"""Promises of the running service: health by inference, a free event loop, a clean end, documents without internet."""

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute

from arcface_api import __version__, cpus
from arcface_api.api.app import DirectApp
from arcface_api.api.health import Health
from arcface_api.arrays import Crop, Features
from arcface_api.cpus import available_cpus
from arcface_api.embedder import Embedder, Picture
from arcface_api.errors import QueueFull, ServiceClosing
from arcface_api.image import decode
from arcface_api.loading import open_embedder
from arcface_api.packs import PackLocations, Role, import_pack, locate
from arcface_api.packs.manifest import PACK_TOML
from arcface_api.session import choose
from arcface_api.session.onnx_cpu import OnnxCpuSession
from arcface_api.settings import Settings
from pictures import picture_bytes
from serving import Service, until

JPEG = picture_bytes()


def test_health_says_what_runs(service: Service) -> None:
    answer = service.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "pack": "tiny_recogniser",
        "model": "tiny_recogniser",
        "provider": "CPUExecutionProvider",
        "precision": "float32",
        "threads": available_cpus(),
        "lanes": min(2, available_cpus()),
        "has_wide_lane": False,
        "batch_sizes": [1, 2, 4, 8],
        "self_test_cosine": pytest.approx(1),
        "doubt": None,
        "reason": answer.json()["reason"],
    }
    assert "this build of ONNX Runtime has no CUDA" in answer.json()["reason"]


def test_info_says_which_cpus_may_be_used(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "a.slice" / "cpu.max"
    group.parent.mkdir()
    group.write_text("50000 100000\n")
    (tmp_path / "membership").write_text("0::/a.slice/b.service\n")
    monkeypatch.setattr(cpus.usable_cpus, "__defaults__", (tmp_path, tmp_path / "membership"))
    about = run_service(tiny_recogniser).get("/info").json()
    assert about["cpus"] == f"1 of {os.cpu_count()} (the quota in {group} allows 0.5)"
    assert about["threads"] == about["lanes"] == 1


def test_opencv_uses_its_worker_s_share_of_the_cpus(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> None:
    """It counts them by itself, with another result where a group below the root has a quota."""
    cv2.setNumThreads(available_cpus() + 1)
    make_app(tiny_recogniser, workers=available_cpus())
    assert cv2.getNumThreads() == 1
    cv2.setNumThreads(-1)


def test_a_lone_request_runs_on_all_threads_and_those_that_meet_run_side_by_side(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCFACE_LANES", "auto")
    monkeypatch.setattr(choose, "fastest_lanes", lambda *_: 2)
    service = run_service(tiny_recogniser, threads=2)
    health = service.get("/health").json()
    assert (health["lanes"], health["has_wide_lane"]) == (2, True)
    ran_with_lanes, held, go_on = list[int](), list[int](), threading.Event()
    real = OnnxCpuSession.run

    def watched(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        ran_with_lanes.append(self.lanes)
        held.append(self.lanes)
        assert go_on.wait(100)
        held.pop()
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", watched)
    go_on.set()
    alone = service.post("/embed", files={"file": JPEG}).json()["embedding"]
    assert ran_with_lanes == [1]
    go_on.clear()
    with ThreadPoolExecutor(8) as pool:
        posts = [pool.submit(service.post, "/embed", files={"file": JPEG}) for _ in range(16)]
        until(lambda: len(held) == 2 and service.app.embedder.inside == 8)
        go_on.set()
        answers = [post.result().json()["embedding"] for post in posts]
    assert ran_with_lanes.count(2) >= 2
    assert answers == [alone] * 16


def test_answer_is_the_same_with_an_access_log(
    service: Service, run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    logging_service = run_service(tiny_recogniser, access_log=True)
    for path, files in (("/embed", {"file": JPEG}), ("/embed", {"file": b"no picture"})):
        one, other = (each.post(path, files=files) for each in (service, logging_service))
        assert (one.status_code, one.content) == (other.status_code, other.content)
        assert set(one.headers) == set(other.headers)


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/info"])
def test_monitors_may_ask_with_head(service: Service, path: str) -> None:
    answer = service.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_health_has_nothing_to_explain_where_all_is_as_asked(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    assert run_service(tiny_recogniser, device="cpu", precision="float32").get("/health").json()["reason"] is None


def test_readiness_is_proved_by_a_real_inference(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    real = OnnxCpuSession.run

    def counted(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        runs.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", counted)
    assert service.get("/readyz").json() == {"status": "ready", "reason": None}
    assert len(runs) == 1
    service.get("/health")
    assert len(runs) == 1, "a proof of a moment ago is enough"


def opened(recogniser: Path, folder: Path, **settings: Any) -> Embedder:
    pack = locate(str(recogniser), PackLocations(None, folder / "cache", folder / "insightface"))
    return open_embedder(pack, {Role.RECOGNISER: pack.read(Role.RECOGNISER)}, Settings(**settings))


@pytest.fixture
def embedder(tiny_recogniser: Path, tmp_path: Path) -> Embedder:
    return opened(tiny_recogniser, tmp_path)


def test_model_that_starts_to_fail_is_noticed(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        monkeypatch.setattr("arcface_api.api.health.FRESH_SECONDS", 0)
        health = Health(embedder, hang_seconds=60)
        assert await health.why_not() is None
        with monkeypatch.context() as patched:
            patched.setattr(OnnxCpuSession, "run", lambda _, crops: np.full((len(crops), 512), np.nan, np.float32))
            assert "length nan" in (await health.why_not() or "")
        assert await health.why_not() is None
        await embedder.close()

    asyncio.run(check())


def test_model_that_hangs_is_noticed_and_probed_only_once(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        health = Health(embedder, hang_seconds=60)
        go_on, runs, real = threading.Event(), list[int](), OnnxCpuSession.run

        def hanging(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
            runs.append(1)
            assert go_on.wait(100)
            return real(self, crops)

        monkeypatch.setattr(OnnxCpuSession, "run", hanging)
        with monkeypatch.context() as patched:
            patched.setattr("arcface_api.api.health.PROBE_SECONDS", 0.05)
            for _ in range(3):
                assert await health.why_not() == "embedding a picture takes longer than 0.05 seconds"
        go_on.set()
        monkeypatch.setattr("arcface_api.api.health.PROBE_SECONDS", 100)
        assert await Health(embedder, hang_seconds=60).why_not() is None, "it waits its turn behind the probe that hung"
        assert len(runs) == 2
        await embedder.close()

    asyncio.run(check())


def test_closed_embedder_refuses_new_work(embedder: Embedder) -> None:
    async def check() -> None:
        await embedder.close()
        with pytest.raises(ServiceClosing, match="shutting down"):
            await embedder.embed(Picture(JPEG))

    asyncio.run(check())


def test_info_has_what_a_caller_may_record(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    info = run_service(tiny_pack, max_image_bytes=1_000_000, threads=1).get("/info").json()
    assert info["version"] == __version__
    assert info["roles"] == ["recogniser", "age_gender", "landmarks_3d"]
    assert info["embedding_dim"] == 512
    assert re.fullmatch(r"[0-9a-f]{16}", info["fingerprint"])
    assert {file["role"] for file in info["files"]} == {*info["roles"], "landmarks"}
    assert all(file["licence"] for file in info["files"])
    assert all(re.fullmatch(r"[0-9a-f]{64}", file["sha256"]) for file in info["files"])
    assert info["limits"]["max_image_bytes"] == 1_000_000
    assert info["limits"]["queue_capacity"] == 256
    assert (info["provider"], info["precision"], info["threads"]) == ("CPUExecutionProvider", "float32", 1)
    assert info["assumptions"], "an unknown model is not used without saying what was assumed"


def test_event_loop_is_free_while_an_embed_runs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stands still until the test lets it go: were it on the event loop, /livez could not answer."""
    entered, go_on = threading.Event(), threading.Event()
    real = OnnxCpuSession.run

    def slow(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        entered.set()
        assert go_on.wait(100)
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", slow)
    with ThreadPoolExecutor() as pool:
        embedding = pool.submit(service.post, "/embed", files={"file": JPEG})
        assert entered.wait(100)
        assert service.get("/livez").json() == {"status": "alive", "reason": None}
        assert not embedding.done()
        go_on.set()
        assert embedding.result().status_code == 200


def test_requests_in_flight_are_answered_at_the_end(
    run_service: Callable[..., Service], tiny_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service gets its signal to stop while the model works; the answer still arrives."""
    service = run_service(tiny_recogniser)
    entered = threading.Event()
    real = OnnxCpuSession.run

    def slow(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        entered.set()
        time.sleep(0.5)
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", slow)
    with ThreadPoolExecutor() as pool:
        embedding = pool.submit(service.post, "/embed", files={"file": JPEG})
        assert entered.wait(100)
        service.stop()
        assert embedding.result().status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(str(service.base_url))


def test_caller_that_leaves_changes_nothing(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    host, port = service.base_url.host, service.base_url.port
    head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(JPEG)}\r\n\r\n"
    with socket.create_connection((host, port)) as caller:
        caller.sendall(head.encode() + JPEG[:100])
    assert service.post("/embed", files={"file": JPEG}).status_code == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("offers", ["", "Upgrade: h2c\r\nConnection: Upgrade\r\n"])
@pytest.mark.parametrize("picture", [JPEG, JPEG + b"\0" * 300_000], ids=["small", "large"])
def test_callers_that_left_cost_the_model_nothing(
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    monkeypatch: pytest.MonkeyPatch,
    picture: bytes,
    offers: str,
) -> None:
    """They had sent their whole pictures, so only the lost connection shows that they are gone."""
    service = run_service(tiny_recogniser, queue_capacity=4, max_batch_files=1, lanes=1)
    entered, go_on, ran = threading.Event(), threading.Event(), list[int]()
    real = OnnxCpuSession.run

    def held(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        ran.append(len(crops))
        entered.set()
        assert go_on.wait(100)
        return real(self, crops)

    def is_full() -> bool:
        """Asked with what is refused in any case, so that it takes no place."""
        return service.post("/embed", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 429

    monkeypatch.setattr(OnnxCpuSession, "run", held)
    host, port = service.base_url.host, service.base_url.port
    head = (
        f"POST /embed HTTP/1.1\r\nHost: {host}\r\n{offers}"
        f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    ).encode()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(service.post, "/embed", files={"file": JPEG})
        assert entered.wait(100)
        with ExitStack() as callers:
            for _ in range(3):
                caller = callers.enter_context(socket.create_connection((host, port)))
                caller.sendall(head)
                time.sleep(0.1)  # most clients send it in a piece of its own
                caller.sendall(picture)
            while not is_full():
                time.sleep(0.01)
        while is_full():
            time.sleep(0.01)
        go_on.set()
        assert first.result().status_code == 200
    assert ran == [1]


def test_pictures_of_callers_that_left_are_not_decoded(
    tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those that a thread has begun: it cannot be made to let go of them."""
    entered, go_on, decoded = threading.Event(), threading.Event(), list[int]()

    def held(content: bytes, *given: Any) -> Any:
        decoded.append(len(content))
        entered.set()
        assert go_on.wait(100)
        return decode(content, *given)

    async def check() -> None:
        embedder = opened(tiny_recogniser, tmp_path, queue_capacity=4, max_batch_files=1, decode_threads=1)
        callers = [asyncio.create_task(embedder.embed(Picture(JPEG))) for _ in range(4)]
        await asyncio.to_thread(entered.wait)
        with pytest.raises(QueueFull):
            embedder.check_room(1)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        embedder.check_room(4)
        go_on.set()
        assert (await embedder.embed(Picture(JPEG))).norm > 0
        await embedder.close()
        assert decoded == [len(JPEG)] * 2

    monkeypatch.setattr("arcface_api.embedder.prepare.decode", held)
    monkeypatch.setattr("arcface_api.embedder.embedder.SMALL_BYTES", 0)  # small ones are begun several at once
    asyncio.run(asyncio.wait_for(check(), 60))


def test_documents_need_no_internet(service: Service) -> None:
    page = service.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/"), f"{link} is not served from the package"
        assert service.get(link).status_code == 200


def test_every_operation_is_documented(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> None:
    app = make_app(tiny_recogniser)
    paths = app.framework.openapi()["paths"]
    assert set(paths) == {"/embed", "/embed/batch", "/health", "/livez", "/readyz", "/info", "/metrics"}
    for route in app.framework.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            assert route.summary
            assert route.description
    parameters = {parameter["name"] for parameter in paths["/embed"]["post"]["parameters"]}
    assert parameters == {
        "include_attributes",
        "include_quality",
        "include_landmarks",
        "include_crop",
        "flip",
        "normalize",
        "align",
        "fit",
        "encoding",
        "resize",
        "X-Request-Timeout",
        "X-Require-Fingerprint",
        "X-Require-Recipe",
        "X-Request-ID",
    }


def test_compose_file_passes_on_every_setting_that_shapes_answers() -> None:
    """A setting that the container never sees is silently not set."""
    compose = (Path(__file__).parents[2] / "compose.yaml").read_text(encoding="utf-8")
    fixed = {"host", "port", "models_dir", "cache_dir"}  # the image's
    missing = [
        name for name in Settings.model_fields if name not in fixed and f"ARCFACE_{name.upper()}:" not in compose
    ]
    assert not missing


def test_recogniser_that_is_fed_wrongly_is_doubted(
    run_service: Callable[..., Service], real_recogniser: Path, tmp_path: Path
) -> None:
    """It returns embeddings without any error, by which strangers are the same person."""
    locations = PackLocations(tmp_path / "packs", tmp_path / "cache", tmp_path / "insightface")
    pack = import_pack([real_recogniser], locations, name="own")
    service = run_service(pack.folder)
    assert service.get("/health").json()["doubt"] is None
    assert service.get("/info").json()["doubt"] is None
    stated = pack.folder / PACK_TOML
    stated.write_text(stated.read_text().replace("mean = 127.5", "mean = 0").replace("std = 127.5", "std = 1"))
    service = run_service(pack.folder)
    doubt = service.get("/health").json()["doubt"]
    assert doubt == service.get("/info").json()["doubt"]
    assert doubt.startswith("The recogniser hardly distinguishes faces: ")


def test_compose_file_publishes_on_this_machine_unless_set_otherwise() -> None:
    """The service has no authentication."""
    compose = (Path(__file__).parents[2] / "compose.yaml").read_text(encoding="utf-8")
    assert re.findall(r"    ports:\n((?:      .*\n)+)", compose) == [
        '      - "${ARCFACE_PUBLISH:-127.0.0.1:5555}:5555"\n'
    ]
