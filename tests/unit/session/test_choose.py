"""Promises of `session/choose.py`: tested before use, the fastest where it is not known, reasons for second best."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from arcface_api.arrays import Features
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session import (
    Cache,
    ModelContent,
    SessionConfig,
    choose,
    onnx_gpu,
    open_session,
    openvino_cpu,
    plan,
    self_test,
)
from arcface_api.session.choose import batch_sizes
from arcface_api.session.onnx_cpu import CPU_PROVIDER, OnnxCpuSession, Session
from arcface_api.session.onnx_gpu import CUDA_PROVIDER
from arcface_api.session.openvino_cpu import OPENVINO, OpenVinoSession
from conftest import needs_bfloat16

CPU_AUTO = SessionConfig("cpu", "auto", 2, None)


def available(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(plan, "cpu_flags", lambda: frozenset(names))


def test_batch_sizes_are_powers_of_two_and_the_largest() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(8) == (1, 2, 4, 8)
    assert batch_sizes(12) == (1, 2, 4, 8, 12)


def test_reference_proves_itself_with_one(recogniser: ModelContent, cache: Cache) -> None:
    chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert chosen.session.batch_sizes == (1, 2, 4, 8)
    assert chosen.self_test_cosine == pytest.approx(1)


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("names", [("amx_bf16",), ("avx512_bf16",)])
def test_session_that_deviates_from_float32_is_not_used(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    flags(monkeypatch, *names)
    real = OpenVinoSession.run

    def deviating(self: OpenVinoSession, crops: Any) -> Features:
        rows = real(self, crops)
        return rows + np.roll(rows, 1, axis=1) * np.float32(0.1) if self.precision == "bfloat16" else rows

    monkeypatch.setattr(OpenVinoSession, "run", deviating)
    chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.session.precision == "float32"
    assert "OpenVINO in bfloat16 is not used: OpenVINO in bfloat16 deviates from float32" in (chosen.reason or "")
    with pytest.raises(RuntimeUnfit, match=r"lowest cosine on the built-in probe crops is 0\.99\d+"):
        open_session(recogniser, SessionConfig("cpu", "bfloat16", 2, None), cache)


@pytest.mark.usefixtures("with_openvino")
def test_session_that_returns_rubbish_in_one_batch_size_only_is_found(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, "amx_bf16")
    real = OpenVinoSession.run

    def broken_at_four(self: OpenVinoSession, crops: Any) -> Features:
        rows = real(self, crops).copy()
        if len(crops) == 4:
            rows[3] = 0
        return rows

    monkeypatch.setattr(OpenVinoSession, "run", broken_at_four)
    chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "not finite, or zero, for a batch of 4" in (chosen.reason or "")


@pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="needs a build of ONNX Runtime without CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_auto_falls_back_from_a_gpu_that_cannot_be_loaded_and_says_why(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    chosen = open_session(recogniser, SessionConfig("auto", "auto", 2, None), cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert (chosen.reason or "").count("CUDAExecutionProvider could not be loaded") == 1
    with pytest.raises(RuntimeUnfit, match="ONNX Runtime used CPUExecutionProvider instead"):
        open_session(recogniser, SessionConfig("cuda", "auto", 2, None), cache)


def test_broken_model_is_reported_as_such(recogniser: ModelContent, cache: Cache) -> None:
    broken = ModelContent(recogniser.content[:100], recogniser.sha256, recogniser.spec, 512)
    with pytest.raises(ModelFailed, match="cannot load the model"):
        open_session(broken, CPU_AUTO, cache)


def test_next_start_needs_no_reference(recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_session(recogniser, CPU_AUTO, cache)
    opened: list[int] = []
    real = OnnxCpuSession.__init__

    def counted(self: OnnxCpuSession, *arguments: Any, **named: Any) -> None:
        opened.append(1)
        real(self, *arguments, **named)

    monkeypatch.setattr(OnnxCpuSession, "__init__", counted)
    second = open_session(recogniser, CPU_AUTO, cache)
    assert len(opened) == 1
    assert (second.session.provider, second.reason) == (first.session.provider, first.reason)


def test_cached_choice_is_tested_again_and_made_again_where_it_fails(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_session(recogniser, CPU_AUTO, cache)
    real = self_test.lowest_cosine
    answers = iter([0.5])
    monkeypatch.setattr(choose, "lowest_cosine", lambda *given: next(answers, None) or real(*given))
    with caplog.at_level(logging.WARNING):
        chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.self_test_cosine == pytest.approx(1)
    assert "CPUExecutionProvider in float32, chosen at an earlier start, cannot be used now" in caplog.text


def test_cached_choice_in_another_form_is_made_again(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checksum is right, but it is no verdict: no start may fail on it."""
    monkeypatch.setattr(Cache, "read", lambda *_: np.frombuffer(b"something else", np.uint8))
    with caplog.at_level(logging.WARNING):
        chosen = open_session(recogniser, SessionConfig("cpu", "float32", 1, None), cache)
    assert chosen.self_test_cosine == pytest.approx(1)
    assert "cannot be read; choosing again" in caplog.text


def test_what_could_not_be_opened_today_is_tried_again_tomorrow(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU whose driver was missing at one start must not be forgotten for good."""
    tried: list[str] = []

    def unloadable(provider: str) -> None:
        tried.append(provider)
        raise RuntimeUnfit(f"{provider} could not be loaded")

    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    monkeypatch.setattr(onnx_gpu, "check_provider", unloadable)
    for _ in range(2):
        chosen = open_session(recogniser, SessionConfig("auto", "float32", 2, None), cache)
        assert chosen.session.provider == CPU_PROVIDER
    assert tried == [CUDA_PROVIDER, CUDA_PROVIDER]


def test_reasons_about_the_cpu_are_left_out_where_a_gpu_is_used(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra cuda brings no OpenVINO: /health must not complain of that while the GPU runs as it should."""
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    on_gpu = OnnxCpuSession(recogniser, 1, (1,))  # what runs it does not matter here
    monkeypatch.setattr(choose, "OnnxGpuSession", lambda *_: on_gpu)
    assert open_session(recogniser, SessionConfig("auto", "auto", 1, None), cache).reason is None


@pytest.mark.usefixtures("with_openvino")
def test_broken_openvino_is_stepped_over(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("libopenvino.so: cannot open shared object file")

    flags(monkeypatch, "amx_bf16")
    monkeypatch.setattr(openvino_cpu, "_openvino", missing)
    chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "cannot open shared object file" in (chosen.reason or "")
    with pytest.raises(ModelFailed, match="cannot open shared object file"):
        open_session(recogniser, SessionConfig("cpu", "bfloat16", 2, None), cache)


@pytest.mark.usefixtures("with_openvino")
def test_choice_that_was_timed_and_cannot_be_kept_says_that_the_next_start_may_differ(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three restarts that each timed the backends have returned three vectors of one picture."""
    flags(monkeypatch, "avx2")
    said = "the next start, or another worker, may choose another one and return slightly different vectors"
    assert said not in (open_session(recogniser, CPU_AUTO, Cache(tmp_path / "kept")).reason or "")
    assert said not in caplog.text
    (tmp_path / "file").write_bytes(b"")
    chosen = open_session(recogniser, CPU_AUTO, Cache(tmp_path / "file" / "below"))
    assert said in (chosen.reason or "")
    assert any(said in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.usefixtures("with_openvino")
def test_start_that_cannot_use_what_it_used_before_says_so_and_the_next_one_uses_it_again(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory may be short for a moment, at the worst one."""
    flags(monkeypatch, "avx2")

    def favour(provider: str) -> None:
        def fastest(sessions: Sequence[Session], _: object) -> Session:
            return next(session for session in sessions if session.provider == provider)

        monkeypatch.setattr(choose, "fastest", fastest)

    favour(OPENVINO)
    assert open_session(recogniser, CPU_AUTO, cache).session.provider == OPENVINO
    favour(CPU_PROVIDER)
    real, failures = self_test.lowest_cosine, iter([ModelFailed("no memory")])

    def failing_once(*given: Any) -> float:
        for failure in failures:
            raise failure
        return real(*given)

    monkeypatch.setattr(choose, "lowest_cosine", failing_once)
    with caplog.at_level(logging.WARNING):
        chosen = open_session(recogniser, CPU_AUTO, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "OpenVINO in float32, chosen at an earlier start, cannot be used now: no memory" in (chosen.reason or "")
    assert "OpenVINO in float32, chosen at an earlier start, cannot be used now: no memory" in caplog.text
    assert open_session(recogniser, CPU_AUTO, cache).session.provider == OPENVINO


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_compiled_model_that_was_lost_is_kept_again(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, "amx_bf16")
    open_session(recogniser, CPU_AUTO, Cache(tmp_path))
    entries = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    largest = max(entries, key=lambda path: len(entries[path]))
    largest.write_bytes(entries[largest][:-1])
    assert open_session(recogniser, CPU_AUTO, Cache(tmp_path)).session.precision == "bfloat16"
    assert len(largest.read_bytes()) == len(entries[largest])


@needs_bfloat16
@pytest.mark.usefixtures("with_openvino")
def test_first_start_ends_as_the_next_one_would_from_the_cache(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, "amx_bf16")
    kept = open_session(recogniser, CPU_AUTO, Cache(tmp_path)).session
    assert isinstance(kept, OpenVinoSession)
    assert kept._stored is not None
    unkept = open_session(recogniser, CPU_AUTO, Cache(None)).session
    assert isinstance(unkept, OpenVinoSession)
    assert unkept._stored is None


def test_denormals_count_as_zero_only_where_no_feature_changes(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = OnnxCpuSession.__init__

    def watched(self: OnnxCpuSession, *arguments: Any, flushes_denormals: bool = False, **named: Any) -> None:
        real(self, *arguments, flushes_denormals=flushes_denormals, **named)
        seen.append(flushes_denormals)

    monkeypatch.setattr(OnnxCpuSession, "__init__", watched)
    open_session(recogniser, CPU_AUTO, cache)
    assert seen[-1] is True
    monkeypatch.setattr(choose._Trial, "may_flush_denormals", lambda _: False)
    seen.clear()
    open_session(recogniser, SessionConfig("cpu", "float32", 1, None), cache)
    assert seen == [False]
