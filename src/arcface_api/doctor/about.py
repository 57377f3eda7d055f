"""What stands at the top of a report: versions, machine, limits, packages, settings."""

import os
import platform
import re
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from arcface_api import __version__
from arcface_api.cpus import available_cpus, cpu_name, cpu_quota, memory_limit_bytes
from arcface_api.doctor.subject import Subject

_RELEVANT_FLAGS = re.compile(r"avx|avx2|avx512f|avx512_bf16|avx512_vnni|avx_vnni|amx_.*|asimd|bf16|i8mm|sve")
_RELEVANT_PACKAGE = re.compile(
    r"onnx(runtime.*)?|openvino.*|numpy|opencv-.*|nvidia-.*|tensorrt.*|fastapi.*|starlette|uvicorn|uvloop|httptools"
    r"|multipart|orjson|pydantic.*|protobuf|httpx|click|filelock|prometheus-client|platformdirs|psutil|tomli-w|packaging|simplejpeg|tenacity"
    r"|opentelemetry-.*|insightface"
)


def about(subject: Subject) -> dict[str, Any]:
    """Facts as plain values, in the order in which they are shown; None: not known, or there is none."""
    groups = subject.places.cgroups, subject.places.membership
    facts: dict[str, Callable[[], Any]] = {
        "version": lambda: __version__,
        "python": lambda: f"{platform.python_version()} in {sys.prefix}",
        "system": platform.platform,
        "container": lambda: _container(subject),
        "processor": lambda: cpu_name() or platform.processor() or platform.machine(),
        "processor_flags": lambda: sorted(filter(_RELEVANT_FLAGS.fullmatch, subject.flags)),
        "cpus": lambda: available_cpus(*groups),
        "cpus_of_the_host": os.cpu_count,
        "cpu_quota": lambda: cpu_quota(*groups),
        "memory_limit_bytes": lambda: memory_limit_bytes(*groups),
        "packages": _packages,
        "settings": lambda: _changed_settings(subject),
    }
    return {name: _known(find) for name, find in facts.items()}


def _known(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except Exception:  # noqa: BLE001  # another system, or a damaged installation: a report is still made
        return None


def _container(subject: Subject) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in subject.environment:
        return "kubernetes"
    if os.path.exists("/.dockerenv"):  # noqa: PTH110  # Path.exists raises in a closed folder
        return "docker"
    if os.path.exists("/run/.containerenv"):  # noqa: PTH110  # as above
        return "podman"
    return subject.environment.get("container")


def _packages() -> dict[str, str]:
    """The packages that matter here, with their versions; one that is there twice has both."""
    found: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if _RELEVANT_PACKAGE.fullmatch(name):
            found.setdefault(name, set()).add(distribution.version)
    return {name: ", ".join(sorted(found[name])) for name in sorted(found)}


def _changed_settings(subject: Subject) -> dict[str, Any] | None:
    if subject.given is None:
        return None
    changed = subject.given.model_dump(mode="json", exclude_defaults=True)
    return {name: sorted(value) if isinstance(value, list) else value for name, value in changed.items()}
