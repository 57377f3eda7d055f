"""Promises of `session/choose.py`: what was asked for or a refusal, proof before use, reasons for second best."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from arcface_api.arrays import Features
from arcface_api.errors import ModelFailed, RuntimeUnfit
from arcface_api.session import Cache, ModelContent, Wish, choose, onnx_gpu, open_session, openvino_cpu, proving
from arcface_api.session.choose import REFERENCE, Candidate, batch_sizes, check_installation, plan
from arcface_api.session.model import Session
from arcface_api.session.onnx_cpu import CPU_PROVIDER, OnnxCpuSession
from arcface_api.session.onnx_gpu import CUDA_PROVIDER, TENSORRT_PROVIDER
from arcface_api.session.openvino_cpu import OPENVINO, OpenVinoSession

CPU_WISH = Wish("cpu", "auto", 2, None)
BFLOAT16 = Candidate(OPENVINO, "bfloat16")
OPENVINO_FLOAT32 = Candidate(OPENVINO, "float32")
CUDA_FLOAT16, CUDA_FLOAT32 = Candidate(CUDA_PROVIDER, "float16"), Candidate(CUDA_PROVIDER, "float32")


def available(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(providers))


def flags(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(choose, "cpu_flags", lambda: frozenset(names))


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cpu_is_used_where_asked_for_even_beside_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    planned = plan("cpu", "auto")
    assert (planned.in_order, planned.racing) == ((), (REFERENCE,))


def test_auto_prefers_cuda_in_float16_and_may_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    planned = plan("auto", "auto")
    assert planned.in_order == (CUDA_FLOAT16, CUDA_FLOAT32)
    assert planned.racing == (REFERENCE,)


def test_auto_without_cuda_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CPU_PROVIDER)
    assert "this build of ONNX Runtime has no CUDA" in plan("auto", "auto").reasons
    assert plan("cpu", "float32").reasons == ()


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_gpu_without_its_provider_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    available(monkeypatch, CPU_PROVIDER)
    with pytest.raises(RuntimeUnfit, match=r"has only CPUExecutionProvider. Install arcface-api\[cuda\]"):
        plan(device, "auto")


@pytest.mark.parametrize(("device", "provider"), [("cuda", CUDA_PROVIDER), ("tensorrt", TENSORRT_PROVIDER)])
def test_gpu_asked_for_by_name_never_ends_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, device: Any, provider: str
) -> None:
    available(monkeypatch, TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)
    assert plan(device, "auto") == choose.Plan((Candidate(provider, "float16"), Candidate(provider, "float32")))
    assert plan(device, "float32") == choose.Plan((Candidate(provider, "float32"),))


@pytest.mark.usefixtures("with_openvino")
def test_amx_makes_bfloat16_the_choice_and_other_bfloat16_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "avx512f", "amx_bf16")
    assert plan("cpu", "auto") == choose.Plan((BFLOAT16,), (OPENVINO_FLOAT32, REFERENCE))
    flags(monkeypatch, "avx512f", "avx512_bf16")
    assert plan("cpu", "auto") == choose.Plan((), (BFLOAT16, OPENVINO_FLOAT32, REFERENCE))
    assert plan("cpu", "bfloat16") == choose.Plan((BFLOAT16,))
    assert plan("cpu", "float32") == choose.Plan((), (OPENVINO_FLOAT32, REFERENCE))


@pytest.mark.usefixtures("with_openvino")
def test_without_bfloat16_instructions_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "avx2")
    assert "no bfloat16 instructions (amx_bf16 or avx512_bf16)" in plan("cpu", "auto").reasons[0]
    with pytest.raises(RuntimeUnfit, match="precision=bfloat16 was asked for, but this CPU has no bfloat16"):
        plan("cpu", "bfloat16")


def test_without_openvino_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, "amx_bf16")
    assert "openvino is not installed" in plan("cpu", "auto").reasons[0]
    with pytest.raises(RuntimeUnfit, match="precision=bfloat16 was asked for, but the package openvino"):
        plan("cpu", "bfloat16")


def test_what_is_never_offered_is_refused_with_the_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnfit, match=r"int8 is not offered.*Allowed are auto, float32, bfloat16"):
        plan("auto", "int8")
    with pytest.raises(RuntimeUnfit, match=r"float16 is for GPUs.*Set precision to auto"):
        plan("cpu", "float16")
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    with pytest.raises(RuntimeUnfit, match=r"bfloat16 is for CPUs.*auto, float16 or float32"):
        plan("cuda", "bfloat16")
    assert plan("auto", "float16") == choose.Plan((CUDA_FLOAT16,))


def test_both_builds_of_onnx_runtime_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installation()
    monkeypatch.setattr(choose, "distribution", lambda _: object())
    with pytest.raises(RuntimeUnfit, match="pip uninstall onnxruntime onnxruntime-gpu"):
        check_installation()


def test_batch_sizes_are_powers_of_two_and_the_largest() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(8) == (1, 2, 4, 8)
    assert batch_sizes(12) == (1, 2, 4, 8, 12)


# ── the choice ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reference_proves_itself_with_one(recogniser: ModelContent, cache: Cache) -> None:
    chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert chosen.session.batch_sizes == (1, 2, 4, 8)
    assert chosen.self_test_cosine == pytest.approx(1)


@pytest.mark.usefixtures("with_openvino")
@pytest.mark.parametrize("names", [("amx_bf16",), ("avx512_bf16",)])
def test_session_that_strays_from_float32_is_not_used(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    flags(monkeypatch, *names)
    real = OpenVinoSession.run

    def straying(self: OpenVinoSession, crops: Any) -> Features:
        rows = real(self, crops)
        return rows + np.roll(rows, 1, axis=1) * np.float32(0.1) if self.precision == "bfloat16" else rows

    monkeypatch.setattr(OpenVinoSession, "run", straying)
    chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.session.precision == "float32"
    assert "OpenVINO in bfloat16 is not used: OpenVINO in bfloat16 strays from float32" in (chosen.reason or "")
    with pytest.raises(RuntimeUnfit, match=r"lowest cosine on the built-in probe faces is 0\.99\d+"):
        open_session(recogniser, Wish("cpu", "bfloat16", 2, None), cache)


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
    chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "not finite, or zero, for a batch of 4" in (chosen.reason or "")


@pytest.mark.skipif(CUDA_PROVIDER in ort.get_available_providers(), reason="needs a build of ONNX Runtime without CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available:UserWarning")
def test_auto_falls_back_from_a_gpu_that_cannot_be_loaded_and_says_why(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    chosen = open_session(recogniser, Wish("auto", "auto", 2, None), cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert (chosen.reason or "").count("CUDAExecutionProvider could not be loaded") == 1
    with pytest.raises(RuntimeUnfit, match="ONNX Runtime took CPUExecutionProvider instead"):
        open_session(recogniser, Wish("cuda", "auto", 2, None), cache)


def test_broken_model_is_told_as_such(recogniser: ModelContent, cache: Cache) -> None:
    broken = ModelContent(recogniser.content[:100], recogniser.sha256, recogniser.spec, 512)
    with pytest.raises(ModelFailed, match="cannot load the model"):
        open_session(broken, CPU_WISH, cache)


def test_next_start_needs_no_reference(recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_session(recogniser, CPU_WISH, cache)
    opened: list[int] = []
    real = OnnxCpuSession.__init__

    def counted(self: OnnxCpuSession, *arguments: Any, **named: Any) -> None:
        opened.append(1)
        real(self, *arguments, **named)

    monkeypatch.setattr(OnnxCpuSession, "__init__", counted)
    second = open_session(recogniser, CPU_WISH, cache)
    assert len(opened) == 1
    assert (second.session.provider, second.reason) == (first.session.provider, first.reason)


def test_what_is_remembered_is_proved_again_and_looked_at_anew_where_it_fails(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_session(recogniser, CPU_WISH, cache)
    real = proving.lowest_cosine
    answers = iter([0.5])
    monkeypatch.setattr(choose, "lowest_cosine", lambda *given: next(answers, None) or real(*given))
    with caplog.at_level(logging.WARNING):
        chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.self_test_cosine == pytest.approx(1)
    assert "is not simply used again" in caplog.text


def test_what_was_remembered_in_another_form_is_worked_out_anew(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, by its checksum, but no verdict: a start must not fail on it for ever."""
    monkeypatch.setattr(Cache, "read", lambda *_: np.frombuffer(b"something else", np.uint8))
    with caplog.at_level(logging.WARNING):
        assert open_session(recogniser, Wish("cpu", "float32", 1, None), cache).self_test_cosine == pytest.approx(1)
    assert "cannot be read and is worked out anew" in caplog.text


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
        assert open_session(recogniser, Wish("auto", "float32", 2, None), cache).session.provider == CPU_PROVIDER
    assert tried == [CUDA_PROVIDER, CUDA_PROVIDER]


def test_gpu_that_is_used_needs_no_excuse_for_the_cpu(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra cuda brings no OpenVINO: /health must not complain of that while the GPU runs as it should."""
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    on_gpu = OnnxCpuSession(recogniser, 1, (1,))  # what runs it does not matter here
    monkeypatch.setattr(choose, "OnnxGpuSession", lambda *_: on_gpu)
    assert open_session(recogniser, Wish("auto", "auto", 1, None), cache).reason is None


@pytest.mark.usefixtures("with_openvino")
def test_broken_openvino_is_stepped_over(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(openvino_cpu, "_openvino", missing)
    chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "cannot open shared object file" in (chosen.reason or "")
    with pytest.raises(ModelFailed, match="cannot open shared object file"):
        open_session(recogniser, Wish("cpu", "bfloat16", 2, None), cache)


@pytest.mark.usefixtures("with_openvino")
def test_choice_that_was_timed_and_cannot_be_kept_says_that_the_next_start_may_differ(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three restarts that each timed anew were seen to give three vectors of one picture."""
    flags(monkeypatch, "avx2")
    said = "the next one, or another worker, may run another way and give slightly different vectors"
    assert said not in (open_session(recogniser, CPU_WISH, Cache(tmp_path / "kept")).reason or "")
    assert said not in caplog.text
    (tmp_path / "file").write_bytes(b"")
    chosen = open_session(recogniser, CPU_WISH, Cache(tmp_path / "file" / "below"))
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
    assert open_session(recogniser, CPU_WISH, cache).session.provider == OPENVINO
    favour(CPU_PROVIDER)
    real, failures = proving.lowest_cosine, iter([ModelFailed("no memory")])

    def failing_once(*given: Any) -> float:
        for failure in failures:
            raise failure
        return real(*given)

    monkeypatch.setattr(choose, "lowest_cosine", failing_once)
    with caplog.at_level(logging.WARNING):
        chosen = open_session(recogniser, CPU_WISH, cache)
    assert chosen.session.provider == CPU_PROVIDER
    assert "OpenVINO in float32 is not simply used again: no memory" in (chosen.reason or "")
    assert "OpenVINO in float32 is not simply used again: no memory" in caplog.text
    assert open_session(recogniser, CPU_WISH, cache).session.provider == OPENVINO


@pytest.mark.usefixtures("with_openvino")
def test_compiled_model_that_was_lost_is_kept_again(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, "amx_bf16")
    open_session(recogniser, CPU_WISH, Cache(tmp_path))
    entries = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    largest = max(entries, key=lambda path: len(entries[path]))
    largest.write_bytes(entries[largest][:-1])
    assert open_session(recogniser, CPU_WISH, Cache(tmp_path)).session.precision == "bfloat16"
    assert len(largest.read_bytes()) == len(entries[largest])


@pytest.mark.usefixtures("with_openvino")
def test_first_start_ends_as_the_next_one_would_from_the_cache(
    recogniser: ModelContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, "amx_bf16")
    kept = open_session(recogniser, CPU_WISH, Cache(tmp_path)).session
    assert isinstance(kept, OpenVinoSession)
    assert kept._stored is not None
    unkept = open_session(recogniser, CPU_WISH, Cache(None)).session
    assert isinstance(unkept, OpenVinoSession)
    assert unkept._stored is None


@pytest.mark.parametrize("most", [1, 3, 8])
def test_every_probe_is_proved_in_every_batch_size(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    ran: list[int] = []
    real = OnnxCpuSession.run

    def counted(self: OnnxCpuSession, crops: Any) -> Features:
        ran.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", counted)
    session = open_session(recogniser, Wish("cpu", "float32", 1, most), cache).session
    for size in session.batch_sizes:
        assert ran.count(size) * size >= 8


def test_bfloat16_beside_a_gpu_says_why_the_gpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, CUDA_PROVIDER, CPU_PROVIDER)
    monkeypatch.setattr(openvino_cpu, "is_openvino_installed", lambda: True)
    flags(monkeypatch, "amx_bf16")
    assert plan("auto", "bfloat16") == choose.Plan(
        (BFLOAT16,), reasons=("the GPU is not used: precision=bfloat16 is for CPUs",)
    )


def test_denormals_count_as_zero_only_where_no_feature_changes(
    recogniser: ModelContent, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = OnnxCpuSession.__init__

    def watched(self: OnnxCpuSession, *arguments: Any, flushes_denormals: bool = False) -> None:
        real(self, *arguments, flushes_denormals=flushes_denormals)
        seen.append(flushes_denormals)

    monkeypatch.setattr(OnnxCpuSession, "__init__", watched)
    open_session(recogniser, CPU_WISH, cache)
    assert seen[-1] is True
    monkeypatch.setattr(choose._Trial, "may_flush_denormals", lambda _: False)
    seen.clear()
    open_session(recogniser, Wish("cpu", "float32", 1, None), cache)
    assert seen == [False]
