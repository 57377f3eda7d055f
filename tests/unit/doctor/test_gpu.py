"""Promises of the check `gpu`: drivers, access and versions of CUDA that do not fit are found before a model is loaded.

The driver's program and files are replaced by small ones that say the same; no test of this project has a GPU.
"""

from pathlib import Path

import pytest

from arcface_api.doctor import Places, Subject
from doctor.conftest import Install, is_well, notes, problems, subject


def with_driver(folder: Path, version: str, *, has_card: bool = True, device: str = "auto") -> Subject:
    """A machine whose nvidia-smi states this version; in a container without access, the card's file is missing."""
    (folder / "bin").mkdir()
    (folder / "dev").mkdir()
    program = folder / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    if has_card:
        (folder / "dev" / "nvidiactl").touch()
    places = Places(proc=folder / "proc", devices=folder / "dev")
    return subject(places=places, environment={"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}, device=device)


def without_driver(folder: Path, device: str = "auto") -> Subject:
    return subject(places=Places(proc=folder, devices=folder), device=device)


def test_machine_without_gpu_is_well(tmp_path: Path) -> None:
    assert is_well("gpu", without_driver(tmp_path))


def test_gpu_with_a_driver_that_is_new_enough_is_well(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    install("nvidia-cudnn-cu13", "9.28")
    assert is_well("gpu", with_driver(tmp_path, "580.65.06"))


def test_old_driver_is_found(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    assert problems("gpu", with_driver(tmp_path, "570.124.06")) == [
        "The NVIDIA driver has version 570; CUDA 13 needs 580 or newer."
    ]


def test_old_driver_is_found_from_the_kernel_s_file(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia" / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build  (root@host)\n"
    )
    (tmp_path / "nvidiactl").touch()
    assert "has version 550" in problems("gpu", without_driver(tmp_path))[0]


@pytest.mark.parametrize(
    ("package", "version"),
    [("nvidia-cudnn-cu12", "9.1"), ("nvidia-cuda-runtime-cu12", "12.8"), ("nvidia-cuda-runtime", "12.9")],
)
def test_libraries_for_another_cuda_are_found(tmp_path: Path, install: Install, package: str, version: str) -> None:
    install("onnxruntime-gpu", "1.31.1")
    install(package, version)
    found = problems("gpu", with_driver(tmp_path, "580.65.06"))
    assert found == [
        f"{package} is for CUDA 12, but this ONNX Runtime is built for CUDA 13: it cannot load that library."
    ]


def test_build_for_the_older_cuda_needs_its_libraries_and_an_older_driver(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.23.0")
    info = tmp_path / "site" / "onnxruntime" / "capi" / "build_and_package_info.py"
    info.parent.mkdir(parents=True)
    info.write_text("package_name = 'onnxruntime-gpu'\n__version__ = '1.23.0'\ncuda_version = '12.8'\n")
    about = with_driver(tmp_path, "550.90.07")
    assert is_well("gpu", about)
    install("nvidia-cudnn-cu13", "9.28")
    assert "is for CUDA 13, but this ONNX Runtime is built for CUDA 12" in problems("gpu", about)[0]


def test_libraries_for_both_versions_of_cuda_are_well(tmp_path: Path, install: Install) -> None:
    """As where PyTorch for CUDA 12 is in the same environment."""
    for package in ("onnxruntime-gpu", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"):
        install(package, "9.28")
    assert is_well("gpu", with_driver(tmp_path, "580.65.06"))


def test_gpu_that_was_asked_for_and_is_not_there_is_found(tmp_path: Path, install: Install) -> None:
    expected = ["device=cuda was asked for, but there is no NVIDIA driver."]
    assert problems("gpu", without_driver(tmp_path, "cuda")) == expected
    install("onnxruntime-gpu", "1.31.1")
    assert problems("gpu", without_driver(tmp_path, "cuda")) == expected


def test_container_without_access_to_the_gpu_is_found(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    found = problems("gpu", with_driver(tmp_path, "580.65.06", has_card=False, device="cuda"))
    assert found == ["device=cuda was asked for, but this process cannot use the NVIDIA GPU."]


def test_gpu_that_this_onnx_runtime_cannot_use(tmp_path: Path) -> None:
    assert "this ONNX Runtime has no CUDA" in notes("gpu", with_driver(tmp_path, "580.65.06"))[0]
    assert "this ONNX Runtime has no CUDA" in problems("gpu", _asked(tmp_path))[0]


def _asked(folder: Path) -> Subject:
    places = Places(proc=folder / "proc", devices=folder / "dev")
    return subject(places=places, environment={"PATH": f"{folder / 'bin'}:/bin"}, device="cuda")


def test_installation_for_gpus_without_one_is_noted(tmp_path: Path, install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    assert "onnxruntime-gpu is installed, but there is no NVIDIA driver" in notes("gpu", without_driver(tmp_path))[0]
