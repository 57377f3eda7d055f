"""What a result was measured on: a time without its machine says nothing."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "arcface-api",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "opencv-python-headless",
    "simplejpeg",
    "numpy",
    "uvicorn",
    "uvloop",
    "fastapi",
)


def describe() -> dict[str, Any]:
    """Processor, its relevant instruction sets, CPUs of this process, Python and the packages that matter."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return {
        "processor": facts.get("model name", platform.processor()),
        "instruction_sets": [name for name in wanted if name in facts.get("flags", "").split()],
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def revision(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of a checkout, `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
