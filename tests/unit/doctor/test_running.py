"""Promises of the checks of port, running service, model and bfloat16: what really runs, and why nothing faster."""

import json
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from packs.file_server import FileServer

from arcface_api import __version__
from arcface_api.doctor import Places, Subject
from conftest import needs_bfloat16
from doctor.conftest import Install, findings, is_well, json_answer, notes, problems, subject
from serving import Service
from tiny_models import linear_model

AMX = frozenset({"avx512f", "amx_bf16"})


def port_of(url: object) -> int:
    return int(str(url).rstrip("/").rpartition(":")[2])


def states(server: FileServer, status: int = 200, **facts: Any) -> int:
    """A service that says this of itself; returns its port."""
    usual = {
        "status": "ok", "pack": "antelopev2", "version": __version__, "model": "antelopev2_glint360k",
        "provider": "CPUExecutionProvider", "precision": "float32", "threads": 2, "lanes": 1, "has_wide_lane": False,
        "batch_sizes": [1, 8], "self_test_cosine": 1.0, "reason": None, "doubt": None,
    }  # fmt: skip
    server.put("/health", json_answer(json.dumps(usual | facts).encode(), status))
    server.put("/info", json_answer(json.dumps(usual | facts).encode()))
    return port_of(server.url)


# ── the port, and who has it ───────────────────────────────────────────────────────────────────────────────────────


def test_free_port_is_well() -> None:
    assert is_well("port", subject(port=0))
    assert is_well("service", subject(port=0))


def test_port_of_another_program_is_found(server: FileServer) -> None:
    assert "Address already in use" in problems("port", subject(port=port_of(server.url)))[0]
    assert is_well("service", subject(port=port_of(server.url)))


def test_port_that_is_held_but_not_open_is_found() -> None:
    """As by a service that is starting."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        assert "Address already in use" in problems("port", subject(port=holder.getsockname()[1]))[0]


def test_address_of_another_machine_is_found() -> None:
    assert "Cannot listen on 192.0.2.1" in problems("port", subject(host="192.0.2.1"))[0]


def test_running_service_is_asked_and_no_problem(run_service: Callable[..., Service], tiny_recogniser: Path) -> None:
    running = run_service(tiny_recogniser)
    about = subject(port=port_of(running.base_url), pack=str(tiny_recogniser), is_quick=False)
    assert is_well("port", about)
    assert is_well("service", about)
    assert problems("model", about) == []
    assert "as the running service states" in findings("model", about)[0].what  # and it is not loaded again


def test_service_that_asks_for_a_key_is_asked_as_probes_do(server: FileServer) -> None:
    about = subject(port=states(server))
    server.put("/info", json_answer(json.dumps({"status": 401, "code": "unauthenticated"}).encode(), 401))
    assert is_well("service", about)
    assert "as the running service states" in findings("model", about)[0].what


def test_service_that_cannot_embed_is_found(server: FileServer) -> None:
    about = subject(port=states(server, 503, reason="embedding a picture takes longer than 10 seconds"))
    assert is_well("port", about)
    assert problems("service", about) == ["The service cannot embed: embedding a picture takes longer than 10 seconds."]


def test_service_that_doubts_its_model_is_found(server: FileServer) -> None:
    doubt = "The recogniser hardly distinguishes faces: it is probably fed wrongly."
    assert problems("model", subject(port=states(server, doubt=doubt))) == [doubt]


def test_service_that_is_older_than_the_installation_is_noted(server: FileServer) -> None:
    about = subject(port=states(server, version="0.0.9", pack="buffalo_l"))
    old, other = notes("service", about)
    assert old.startswith("It is version 0.0.9, and")
    assert other == "It serves the pack buffalo_l, and the settings name antelopev2."


# ── the model ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_is_loaded_and_what_really_runs_is_stated(tiny_recogniser: Path, tmp_path: Path) -> None:
    about = subject(
        is_quick=False, pack=str(tiny_recogniser), device="cpu", precision="float32", port=0, cache_dir=tmp_path / "c"
    )
    first = findings("model", about)[0].what
    assert "tiny_recogniser" in first
    assert "in float32" in first
    assert "MB in memory" in first
    assert problems("model", about) == []


def test_model_is_loaded_without_a_folder_for_temporary_files(
    tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    about = subject(is_quick=False, pack=str(tiny_recogniser), device="cpu", precision="float32", port=0)
    assert "loaded in" in findings("model", about)[0].what


def test_quick_examination_loads_nothing(tiny_recogniser: Path) -> None:
    assert notes("model", subject(pack=str(tiny_recogniser), port=0)) == [
        "Could not be checked: the model was not loaded (--quick)."
    ]


def test_device_that_cannot_be_used_is_found(tiny_recogniser: Path) -> None:
    found = problems("model", subject(is_quick=False, pack=str(tiny_recogniser), device="cuda", port=0))
    assert found[0].startswith("The model cannot be loaded: device=cuda was asked for, but this build")


def test_model_that_cannot_distinguish_faces_is_found(tmp_path: Path) -> None:
    model = linear_model(112, 512, bias=np.full(512, 1e4, np.float32))
    onnx.save(model, tmp_path / "constant.onnx")
    about = subject(is_quick=False, pack=str(tmp_path / "constant.onnx"), precision="float32", device="cpu", port=0)
    assert problems("model", about)[0].startswith("The recogniser hardly distinguishes faces")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("os.kill(os.getpid(), 9)", "was killed: memory most likely ran out"),
        ("os.write(2, b'bad library\\n'); os.kill(os.getpid(), 4)", "was ended by SIGILL. Its last words: bad library"),
        ("os._exit(3)", "ended with status 3"),
    ],
)
def test_process_that_is_killed_while_it_loads_is_found(
    tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str
) -> None:
    """As the kernel does where memory runs out, or the CPU where a library has instructions that it has not."""
    faulty = tmp_path / "faults" / "fastapi"
    faulty.mkdir(parents=True)
    (faulty / "__init__.py").write_text(f"import os\n{line}\n")
    monkeypatch.syspath_prepend(str(faulty.parent))  # the process that loads begins with this one's sys.path
    assert says in problems("model", subject(is_quick=False, pack=str(tiny_recogniser), port=0))[0]


def test_gpu_that_is_there_and_not_used_is_found(server: FileServer, install: Install, tmp_path: Path) -> None:
    install("onnxruntime-gpu", "1.31.1")
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    stated = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\n"
    (tmp_path / "driver" / "nvidia" / "version").write_text(stated)
    (tmp_path / "nvidiactl").touch()
    reason = "CUDAExecutionProvider in float16 is not used: libcudnn.so.9 is missing"
    about = subject(places=Places(proc=tmp_path, devices=tmp_path), port=states(server, reason=reason))
    assert problems("model", about) == [f"There is a GPU, and it is not used: {reason}."]


def test_reason_for_nothing_faster_is_noted(server: FileServer) -> None:
    about = subject(port=states(server, reason="this build of ONNX Runtime has no CUDA"))
    assert notes("model", about) == ["Why nothing faster is used: this build of ONNX Runtime has no CUDA."]


# ── bfloat16 ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cpu_without_bfloat16_is_well() -> None:
    assert is_well("bfloat16", subject(flags=frozenset({"avx2"})))


def test_bfloat16_without_openvino_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    assert "This CPU has amx_bf16, but the package openvino" in problems("bfloat16", subject(flags=AMX))[0]


def test_installation_for_gpus_needs_no_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA").write_text("Name: onnxruntime-gpu\nVersion: 1.31.1\n")
    paths = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *paths])
    assert is_well("bfloat16", subject(flags=AMX))


def test_bfloat16_that_openvino_cannot_use_is_found(server: FileServer) -> None:
    reason = "OpenVINO in bfloat16 is not used: OpenVINO cannot compile the model"
    about = subject(flags=AMX, port=states(server, reason=reason))
    assert problems("bfloat16", about) == [f"This CPU has amx_bf16, and OpenVINO cannot use it: {reason}."]


def test_bfloat16_that_the_settings_or_the_model_do_not_use_is_noted(server: FileServer) -> None:
    assert (
        "which device=auto and precision=float32 do not use"
        in notes("bfloat16", subject(flags=AMX, precision="float32"))[0]
    )
    reason = "bfloat16 was timed at start and is no faster than float32 here"
    assert reason in notes("bfloat16", subject(flags=AMX, port=states(server, reason=reason)))[0]


def test_bfloat16_that_is_used_is_well(server: FileServer) -> None:
    assert is_well("bfloat16", subject(flags=AMX, port=states(server, provider="OpenVINO", precision="bfloat16")))


@needs_bfloat16
def test_bfloat16_is_really_used_here(tiny_recogniser: Path, tmp_path: Path) -> None:
    about = Subject(given=subject(pack=str(tiny_recogniser), precision="bfloat16", port=0, cache_dir=tmp_path).settings)
    assert is_well("bfloat16", about)
