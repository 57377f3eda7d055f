"""Promises of the self-check: what begins to compute other vectors is noticed on each way a picture takes through the
service, no caller gets a vector from then on, and callers do not notice the checks."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from arcface_api.api.app import DirectApp
from arcface_api.arrays import Crop, Features
from arcface_api.embedder import Embedder, Picture, SelfCheck, self_check
from arcface_api.errors import VectorsDrifted
from arcface_api.session import choose
from pictures import picture_bytes
from serving import Service, until

PICTURE = picture_bytes()
Corrupt = Callable[[DirectApp, pytest.MonkeyPatch], None]


def slightly_wrong(features: Features) -> Features:
    """By the last bit of one number, as a flipped bit of memory may do."""
    wrong = features.copy()
    wrong[:, 7] = np.nextafter(wrong[:, 7], np.float32(np.inf))
    return wrong


def corrupt_run(
    session: Any, patched: pytest.MonkeyPatch, wrong: Callable[[Features], Features], lane: str = ""
) -> None:
    """A session returns other features; with `lane`, on the thread of this name alone."""
    right = session.run

    def run(crops: Sequence[Crop]) -> Features:
        features = right(crops)
        time.sleep(0.02 if lane else 0)  # or one lane would do what is meant for two
        return wrong(features) if lane in threading.current_thread().name else features

    patched.setattr(session, "run", run)


def one_lane(app: DirectApp, patched: pytest.MonkeyPatch) -> None:
    corrupt_run(app.embedder.recogniser.session, patched, slightly_wrong, "recogniser 1")


def all_lanes_by_much(app: DirectApp, patched: pytest.MonkeyPatch) -> None:
    corrupt_run(app.embedder.recogniser.session, patched, lambda features: features + 0.3)


def wide_lane(app: DirectApp, patched: pytest.MonkeyPatch) -> None:
    assert app.embedder.recogniser.wide is not None
    corrupt_run(app.embedder.recogniser.wide, patched, slightly_wrong)


def regressor(app: DirectApp, patched: pytest.MonkeyPatch) -> None:
    corrupt_run(app.embedder.models.regressor, patched, lambda features: features * np.float32(1.01))


def attribute_model(app: DirectApp, patched: pytest.MonkeyPatch) -> None:
    models: Any = app.embedder.models.attributes
    corrupt_run(models.age_gender.session, patched, lambda features: features + np.float32(0.1))


def decoder_of_png(_: DirectApp, patched: pytest.MonkeyPatch) -> None:
    right = cv2.imdecode
    patched.setattr(cv2, "imdecode", lambda *given: _with_other_pixel(right(*given)))


def decoder_of_jpeg(_: DirectApp, patched: pytest.MonkeyPatch) -> None:
    right = simplejpeg.decode_jpeg
    patched.setattr(simplejpeg, "decode_jpeg", lambda *given, **named: _with_other_pixel(right(*given, **named)))


def _with_other_pixel(image: Any) -> Any:
    changed = image.copy()
    changed[50:60, 50:60] ^= 16
    return changed


def results(service: Service) -> dict[str, int]:
    """How many self-checks ended how."""
    lines = [line for line in service.get("/metrics").text.splitlines() if line.startswith("arcface_self_checks_total")]
    return {line.split('"')[1]: int(float(line.split()[1])) for line in lines}


def has_passed(service: Service, more: int = 1) -> None:
    before = results(service)["passed"]
    until(lambda: results(service)["passed"] >= before + more)


@pytest.fixture
def checked(
    run_service: Callable[..., Service], tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    """A service with all models, two lanes and a wide one, that checks itself all the time, after its first checks."""
    monkeypatch.setattr(choose, "_fastest_lanes", lambda *_: 2)
    monkeypatch.setattr(self_check, "AGAIN_SECONDS", 0.01)
    seconds = {"self_check_seconds": 0.01, "hang_seconds": 600}
    service = run_service(tiny_pack, lanes=None, threads=2, cache_dir=tmp_path / "compiled", **seconds)
    assert service.app.info.has_wide_lane
    has_passed(service, 10)
    return service


@pytest.mark.parametrize(
    ("corrupt", "where"),
    [
        (one_lane, ""),
        (all_lanes_by_much, ""),
        (wide_lane, ""),
        (regressor, "align=auto"),
        (attribute_model, "other attributes"),
        (decoder_of_png, "(PNG)"),
        (decoder_of_jpeg, "align=auto"),
    ],
)
def test_whatever_goes_wrong_no_caller_gets_a_vector_until_it_is_right_again(
    checked: Service, corrupt: Corrupt, where: str
) -> None:
    right = checked.post("/embed", files={"file": PICTURE})
    assert right.status_code == 200
    with pytest.MonkeyPatch.context() as patched:
        corrupt(checked.app, patched)
        until(lambda: checked.post("/embed", files={"file": PICTURE}).status_code == 503)
        for refused in (
            checked.post("/embed", files={"file": PICTURE}),
            checked.post("/embed/batch", files=[("files", PICTURE)] * 2),
        ):
            assert (refused.status_code, refused.json()["code"]) == (503, "vectors_drifted")
            assert refused.headers["retry-after"] == "5"
            assert refused.headers["connection"] == "close"  # another worker may be right
        ready, health = checked.get("/readyz"), checked.get("/health")
        assert (ready.status_code, health.status_code) == (503, 503)
        assert ready.json()["reason"] == health.json()["reason"]
        assert ready.json()["reason"].startswith("the vectors have drifted: probe picture ")
        assert where in ready.json()["reason"]
        assert checked.get("/livez").status_code == 200, "not yet: it may pass"
        assert results(checked)["drifted"] > 0
    until(lambda: checked.get("/readyz").status_code == 200)
    assert checked.post("/embed", files={"file": PICTURE}).json() == right.json()


def test_the_reason_names_the_probe_the_cosine_and_the_bits(checked: Service) -> None:
    with pytest.MonkeyPatch.context() as patched:
        decoder_of_png(checked.app, patched)  # only pictures in PNG have known features
        until(lambda: checked.get("/readyz").status_code == 503)
        reason = checked.get("/readyz").json()["reason"]
    assert re.search(
        r"probe picture \d \(PNG\) has a cosine of [\d.]+ to float32 on the CPU and [\d.]+ to its first answer,"
        r" from which 512 of 512 numbers differ",
        reason,
    )
    lowest = float(checked.get("/metrics").text.partition("\narcface_self_check_cosine ")[2].split()[0])
    assert lowest <= 1


def test_checks_are_no_callers_pictures(checked: Service) -> None:
    metrics = checked.get("/metrics").text
    assert 'arcface_pictures_total{outcome="embedded"} 0.0' in metrics
    assert "arcface_alignments_total{" not in metrics
    assert 'route="/embed"' not in metrics
    assert "arcface_pictures_inside 0.0" in metrics


def test_checks_pass_under_load_and_callers_get_the_same_bits(
    run_service: Callable[..., Service], tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the smallest capacity: a check takes no caller's place."""
    monkeypatch.setattr(self_check, "FIRST_SECONDS", 0)
    seconds = {"self_check_seconds": 0.01, "self_check_busy_seconds": 0.01}
    service = run_service(tiny_pack, queue_capacity=8, max_batch_files=8, **seconds)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: service.post("/embed", files={"file": PICTURE}), range(300)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    until(lambda: results(service)["passed"] > 3)
    assert results(service)["drifted"] == results(service)["failed"] == 0


def test_a_check_that_cannot_be_carried_out_is_no_drift(checked: Service, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.MonkeyPatch.context() as patched:
        corrupt_run(checked.app.embedder.recogniser.session, patched, lambda features: features * np.float32(np.nan))
        until(lambda: results(checked)["failed"] > 2)
        assert checked.post("/embed/batch", files=[("files", PICTURE)]).status_code == 200
    has_passed(checked)
    assert results(checked)["drifted"] == 0
    assert caplog.text.count("A self-check could not be carried out: The model returned an embedding of length nan") < 3


def test_zero_seconds_turn_the_check_off(service: Service) -> None:
    assert results(service) == {"passed": 0, "failed": 0, "drifted": 0}


# ── the check by itself ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def embedder(make_app: Callable[..., DirectApp], tiny_recogniser: Path) -> Embedder:
    return make_app(tiny_recogniser).embedder


def checking(embedder: Embedder, hang_seconds: float = 600) -> SelfCheck:
    return SelfCheck(embedder, seconds=0, busy_seconds=0, hang_seconds=hang_seconds)


async def check_all(check: SelfCheck) -> str:
    """One check of everything, as `watch` does."""
    result = await check._check(check._everything(), 0)
    if result == "passed":
        check._has_all = True
        check._has_passed()
    return result


def test_a_second_drift_ends_the_process_at_once(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        checks = checking(embedder)
        assert await check_all(checks) == "passed"
        with monkeypatch.context() as patched:
            corrupt_run(embedder.recogniser.session, patched, slightly_wrong)
            assert await check_all(checks) == "drifted"
            assert (embedder.has_drifted, checks.why_replace()) == (True, None)
        for _ in range(self_check.CLEAN_CHECKS):
            assert embedder.has_drifted, "one check that passes is not enough"
            assert await check_all(checks) == "passed"
        assert (embedder.has_drifted, checks.drift) == (False, None)
        with monkeypatch.context() as patched:
            corrupt_run(embedder.recogniser.session, patched, slightly_wrong)
            assert await check_all(checks) == "drifted"
        assert checks.why_replace() == checks.drift is not None
        await embedder.close()

    asyncio.run(check())


def test_wrong_from_the_start_is_noticed_by_float32(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        corrupt_run(embedder.recogniser.session, monkeypatch, lambda features: features + 1)
        assert await check_all(checking(embedder)) == "drifted"
        await embedder.close()

    asyncio.run(check())


def test_a_model_that_computes_other_bits_in_a_batch_is_not_taken_for_wrong(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = embedder.recogniser.session.run
    wrong_sizes = {2}

    def run(crops: Sequence[Crop]) -> Features:
        return slightly_wrong(right(crops)) if len(crops) in wrong_sizes else right(crops)

    async def check() -> None:
        checks = checking(embedder)
        assert [await check_all(checks) for _ in range(3)] == ["passed"] * 3
        wrong_sizes.add(1)
        assert await check_all(checks) == "drifted", "alone it has always computed the same bits"
        await embedder.close()

    monkeypatch.setattr(embedder.recogniser.session, "run", run)
    asyncio.run(check())


def test_start_beside_callers_does_not_make_other_bits_of_a_size_a_drift(embedder: Embedder) -> None:
    """Then some first answers come from large batches, and others from batches of one."""

    async def check() -> None:
        checks = checking(embedder)
        one, other = checks._plain[:2]
        alone = {probe.name: await embedder.check(probe.picture, probe.options) for probe in (one, other)}
        in_batch = {
            name: replace(answer, batch_size=8, embedding=np.nextafter(answer.embedding, np.float32(np.inf)))
            for name, answer in alone.items()
        }
        found = [checks._difference(one, in_batch[one.name]), checks._difference(other, alone[other.name])]
        checks._has_all = True
        found += [
            checks._difference(probe, answers[probe.name]) for probe in (one, other) for answers in (alone, in_batch)
        ]
        assert found == [None] * 6
        flipped = replace(alone[one.name], embedding=in_batch[one.name].embedding)
        assert "512 of 512 numbers differ" in (checks._difference(one, flipped) or "")
        await embedder.close()

    asyncio.run(check())


@pytest.mark.parametrize("is_equal", [True, False])
def test_bits_of_the_wide_lane_are_known_before_the_first_check(
    make_app: Callable[..., DirectApp], tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, *, is_equal: bool
) -> None:
    """A start under load meets it only later. On all threads a model may add up in another order than on some."""
    monkeypatch.setattr(choose, "_fastest_lanes", lambda *_: 2)
    embedder = make_app(tiny_pack, lanes=None, threads=2).embedder
    assert embedder.recogniser.wide is not None
    if not is_equal:
        corrupt_run(embedder.recogniser.wide, monkeypatch, slightly_wrong)

    async def check() -> None:
        checks = SelfCheck(embedder, seconds=1, busy_seconds=0, hang_seconds=600)
        probe = checks._plain[0]
        answer = await embedder.check(probe.picture, probe.options)
        checks._has_all = True
        other = replace(answer, embedding=np.nextafter(answer.embedding, np.float32(np.inf)))
        assert checks._difference(probe, answer) is None
        assert (checks._difference(probe, other) is not None) == is_equal
        await embedder.close()

    asyncio.run(check())


def test_on_a_gpu_the_cosine_decides(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder.recogniser.session, "provider", "CUDAExecutionProvider")

    async def check() -> None:
        checks = checking(embedder)
        assert await check_all(checks) == "passed"
        with monkeypatch.context() as patched:
            corrupt_run(embedder.recogniser.session, patched, slightly_wrong)
            assert await check_all(checks) == "passed"
        corrupt_run(embedder.recogniser.session, monkeypatch, lambda features: features + np.float32(0.3))
        assert await check_all(checks) == "drifted"
        await embedder.close()

    asyncio.run(check())


def test_a_check_waits_for_callers_until_it_is_overdue(embedder: Embedder) -> None:
    async def check() -> None:
        checks = checking(embedder)
        embedder.inside += 1
        waiting = asyncio.create_task(checks._check(checks._everything(), np.inf))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
        assert not embedder.recognition.batches
        assert await checks._check(checks._everything(), 0) == "passed", "it is overdue"
        embedder.inside -= 1
        assert await waiting == "passed"
        await embedder.close()

    asyncio.run(check())


def test_what_is_inside_when_a_drift_is_noticed_is_refused(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    right, go_on = embedder.recogniser.session.run, threading.Event()

    def waiting(crops: Sequence[Crop]) -> Features:
        assert go_on.wait(100)
        return right(crops)

    async def check() -> None:
        monkeypatch.setattr(embedder.recogniser.session, "run", waiting)
        one = asyncio.create_task(embedder.embed(Picture(PICTURE)))
        many = asyncio.create_task(embedder.embed_many([Picture(PICTURE)] * 3))
        while embedder.inside < 4:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)
        embedder.has_drifted = True
        go_on.set()
        for refused in (one, many, embedder.embed(Picture(PICTURE))):
            with pytest.raises(VectorsDrifted):
                await refused
        await embedder.close()

    asyncio.run(check())


def test_features_of_float32_are_known_where_an_earlier_start_has_computed_them(
    make_app: Callable[..., DirectApp], tiny_recogniser: Path, tmp_path: Path
) -> None:
    first, second = (make_app(tiny_recogniser, cache_dir=tmp_path / "compiled").embedder for _ in range(2))
    computed, known = first.recogniser.probe_features, second.recogniser.probe_features
    assert computed is not None
    assert known is not None
    assert known.shape == (8, 512)
    assert np.array_equal(computed, known)


def test_real_weights_compute_the_same_bits_again_and_again(
    make_app: Callable[..., DirectApp], real_recogniser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make_app(real_recogniser).embedder

    async def check() -> None:
        checks = checking(embedder)
        assert [await check_all(checks) for _ in range(2)] == ["passed"] * 2
        assert checks._lowest > 0.999
        assert checks._is_exact[1]
        corrupt_run(embedder.recogniser.session, monkeypatch, slightly_wrong)
        assert await check_all(checks) == "drifted"
        await embedder.close()

    asyncio.run(check())
