"""The check of GPU, driver, CUDA and cuDNN. It reads what is installed; `model` finds out whether it works."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from arcface_api.doctor.finding import Finding, note, ok, problem
from arcface_api.doctor.installation import is_installed
from arcface_api.doctor.subject import Subject

OLDEST_DRIVERS = {12: 525, 13: 580}
"""Of NVIDIA, by CUDA's version; source: CUDA Compatibility, table 1."""
NEWEST_CUDA = max(OLDEST_DRIVERS)
SMI_SECONDS = 20.0
_DRIVER = re.compile(r"\b(\d{3,})\.\d+(?:\.\d+)?\b")
_FOR_CUDA = re.compile(r"nvidia-.*-cu(\d+)")
_BUILD_INFO = "onnxruntime/capi/build_and_package_info.py"
_CUDA_ITSELF = "nvidia-cuda-runtime"
_EXTRA = "pip uninstall onnxruntime, then pip install 'arcface-api[cuda]'"
_ACCESS = (
    "In a container, give it access: docker compose -f compose.yaml -f compose.cuda.yaml up, or docker run --gpus all"
    " with the NVIDIA Container Toolkit."
)


def gpu(subject: Subject) -> Iterator[Finding]:
    """Compare the driver, and the packages of CUDA, with the build of ONNX Runtime."""
    driver, can_use = driver_version(subject), has_access(subject)
    is_wanted, is_for_gpu = subject.settings.device in ("cuda", "tensorrt"), is_installed("onnxruntime-gpu")
    asked = f"device={subject.settings.device} was asked for, but"
    if is_for_gpu:
        yield from _mismatches()
    if driver is None or not can_use:
        missing = "there is no NVIDIA driver" if driver is None else "this process cannot use the NVIDIA GPU"
        remedy = "Install NVIDIA's driver, or set ARCFACE_DEVICE=auto." if driver is None else _ACCESS
        if is_wanted:
            yield problem(f"{asked} {missing}.", remedy)
        elif is_for_gpu:
            yield note(f"onnxruntime-gpu is installed, but {missing}: the CPU is used.", remedy)
        else:
            yield ok("No NVIDIA GPU is used, and none is needed.")
    elif not is_for_gpu:
        if is_wanted:
            yield problem(f"{asked} this ONNX Runtime has no CUDA.", _EXTRA)
        else:
            yield note(f"There is an NVIDIA GPU (driver {driver}), but this ONNX Runtime has no CUDA.", _EXTRA)
    elif driver < (oldest := OLDEST_DRIVERS.get(cuda_version(), OLDEST_DRIVERS[NEWEST_CUDA])):
        yield problem(
            f"The NVIDIA driver has version {driver}; CUDA {cuda_version()} needs {oldest} or newer.",
            "Update the driver of the machine (not in the container).",
        )
    else:
        yield ok(f"NVIDIA driver {driver} for CUDA {cuda_version()}.")


def driver_version(subject: Subject) -> int | None:
    """The first number of the NVIDIA driver's version; None if there is no driver."""
    stated = ""
    if (program := shutil.which("nvidia-smi", path=subject.environment.get("PATH", os.defpath))) is not None:
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            stated = subprocess.run(  # noqa: S603  # the driver's own program
                command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):  # it cannot reach the driver
            stated = ""
    if not _DRIVER.search(stated):
        try:
            stated = (subject.places.proc / "driver" / "nvidia" / "version").read_text()
        except OSError:
            return None
    found = _DRIVER.search(stated)
    return int(found[1]) if found else None


def has_access(subject: Subject) -> bool:
    """Whether this process may use a card; a container sees its host's driver even if it may not."""
    return any((subject.places.devices / name).exists() for name in ("nvidiactl", "dxg"))  # dxg: Windows' WSL


def cuda_version() -> int:
    """The major version of CUDA for which the installed ONNX Runtime is built, from its file: importing may crash."""
    with suppress(OSError, metadata.PackageNotFoundError):
        file = metadata.distribution("onnxruntime-gpu").locate_file(_BUILD_INFO)
        if found := re.search(r"cuda_version *= *['\"](\d+)\.", Path(str(file)).read_text()):
            return int(found[1])
    return NEWEST_CUDA


def _mismatches() -> Iterator[Finding]:
    """Packages of CUDA's libraries that are for another CUDA than ONNX Runtime is."""
    wanted, found = cuda_version(), dict[str, int]()
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if by_name := _FOR_CUDA.fullmatch(name):
            found[name] = int(by_name[1])
        elif name == _CUDA_ITSELF:
            found[name] = int(distribution.version.partition(".")[0])
    for name in sorted(name for name, version in found.items() if version != wanted):
        stem = name.rpartition("-cu")[0] or name
        if not any(version == wanted for other, version in found.items() if other.startswith(stem)):
            yield problem(
                f"{name} is for CUDA {found[name]}, but this ONNX Runtime is built for CUDA {wanted}: it cannot load"
                " that library.",
                f"pip uninstall {name}, then pip install --upgrade 'arcface-api[cuda]'",
            )
