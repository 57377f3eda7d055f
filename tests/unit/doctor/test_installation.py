"""Promises of the checks `packages` and `runtime`: what pip left behind is found."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from doctor.conftest import Install, is_well, notes, problems, subject


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, line: str) -> None:
    """New processes find this package first, whose import runs the line."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f"{line}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


def test_this_installation_is_well() -> None:
    assert is_well("packages", subject())
    assert is_well("runtime", subject())


def test_old_package_is_found(install: Install) -> None:
    install("click", "7.0")
    assert problems("packages", subject()) == ["click 7.0 is installed, and arcface-api needs click>=8.1."]


def test_missing_package_is_found(install: Install) -> None:
    install("arcface-api", "9", "numpy>=2", 'nothing-of-this-name>=1.5; extra == "cpu"', 'other; extra == "cuda"')
    assert problems("packages", subject()) == ["nothing-of-this-name>=1.5 is missing."]


def test_packages_of_an_extra_of_a_package_are_compared(install: Install) -> None:
    """onnxruntime-gpu[cuda] states which packages of CUDA it needs; the system may have them without pip."""
    install("arcface-api", "9", 'onnxruntime-gpu[cuda]>=1.23; extra == "cuda"')
    install(
        "onnxruntime-gpu", "1.31", "numpy", 'nvidia-cufft<13,>=12; extra == "cuda"', 'nvidia-curand; extra == "cuda"'
    )
    install("nvidia-curand", "10.4")
    assert any("nvidia-cufft" in what and "not installed by pip" in what for what in notes("packages", subject()))
    install("nvidia-cufft", "11.0")
    assert problems("packages", subject()) == [
        "nvidia-cufft 11.0 is installed, and arcface-api needs nvidia-cufft<13,>=12."
    ]


def test_another_opencv_beside_ours_is_noted(install: Install) -> None:
    install("opencv-python", "4.13.0")
    assert "opencv-python is installed beside" in notes("packages", subject())[0]


def test_bare_installation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging", None)
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert "Only the bare package is installed" in problems("packages", subject())[0]
    about = replace(subject(), why_no_commands="ModuleNotFoundError: No module named 'click'")
    assert len(notes("runtime", about)) == 1  # no second problem with the same cause


def test_both_builds_of_onnx_runtime_are_found(install: Install) -> None:
    install("onnxruntime-gpu", "1.31.1")
    assert "onnxruntime and onnxruntime-gpu are installed. They overwrite" in problems("runtime", subject())[0]


def test_no_build_of_onnx_runtime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert problems("runtime", subject()) == ["No build of ONNX Runtime is installed."]


def test_files_of_another_version_are_found(install: Install) -> None:
    """As after one of two builds was uninstalled, and with it files of the other."""
    install("onnxruntime", "1.5.0")
    assert "onnxruntime 1.5.0 is installed, but its files are those of" in problems("runtime", subject())[0]


@pytest.mark.parametrize(
    ("package", "line", "why"),
    [
        (
            "onnxruntime",
            "raise ImportError('libgomp.so.1: cannot open shared object file')",
            "libgomp.so.1: cannot open",
        ),
        ("onnxruntime", "import os; os.kill(os.getpid(), 4)", "the process was killed by signal 4"),
        ("openvino", "raise ImportError('libtbb.so.12: cannot open shared object file')", "libtbb.so.12: cannot open"),
        ("cv2", "raise ImportError('libGL.so.1: cannot open shared object file')", "libGL.so.1: cannot open"),
    ],
)
def test_library_that_cannot_be_loaded_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, line: str, why: str
) -> None:
    broken(tmp_path / "broken", monkeypatch, package, line)
    found = problems("runtime", subject())
    assert len(found) == 1
    assert "cannot be imported" in found[0]
    assert why in found[0]
