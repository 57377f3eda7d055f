"""Checks of what pip installed."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from arcface_api.doctor.finding import Finding, note, ok, problem
from arcface_api.doctor.subject import Subject

if TYPE_CHECKING:
    from packaging.requirements import Requirement

CHOOSE = (
    "Install one of the extras: pip install 'arcface-api[cpu]', or pip install 'arcface-api[cuda]' for NVIDIA GPUs."
)
IMPORT_SECONDS = 60.0
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")
"""Builds of ONNX Runtime; all of them write the same files."""
_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Builds that write the same files as the headless one, which is needed."""


def is_installed(name: str) -> bool:
    """Whether there is a package of this name; another one may have overwritten its files."""
    return any(metadata.distributions(name=name))


def packages(subject: Subject) -> Iterator[Finding]:
    """Compare installed versions with those that this package's metadata allows."""
    del subject
    try:
        importlib.import_module("packaging.requirements")
    except ModuleNotFoundError:
        yield problem("Only the bare package is installed: the service's own packages are missing.", CHOOSE)
        return
    extra = "cuda" if is_installed("onnxruntime-gpu") else "cpu" if is_installed("onnxruntime") else "server"
    upgrade = f"pip install --upgrade 'arcface-api[{extra}]'"
    try:
        needed = list(_needed("arcface-api", [extra]))
    except metadata.PackageNotFoundError:
        yield note("arcface-api runs without being installed, so nothing states which versions it needs.")
        return
    found = [finding for requirement in needed if (finding := _compare(requirement, upgrade)) is not None]
    yield from found
    if others := [name for name in _OPENCV if is_installed(name)]:
        yield note(
            f"{', '.join(others)} is installed beside opencv-python-headless. They overwrite each other's files, so"
            " that another decoder may be used than the one that was tested.",
            f"pip uninstall {' '.join(others)}, then pip install --force-reinstall --no-deps opencv-python-headless"
            " in the version that arcface-api needs.",
        )
    if not found:
        yield ok(f"All {len(needed)} packages that arcface-api[{extra}] needs are there.")


def _needed(name: str, extras: Sequence[str]) -> Iterator["Requirement"]:
    """What a package with these extras requires here; of a required package's extras, too."""
    from packaging.requirements import Requirement  # noqa: PLC0415  # it may be missing

    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            continue
        if requirement.name == name:  # an extra that consists of others
            yield from _needed(name, sorted(requirement.extras))
            continue
        yield requirement
        if requirement.extras and is_installed(requirement.name):
            own = {str(each) for each in _needed(requirement.name, [])}
            yield from (each for each in _needed(requirement.name, sorted(requirement.extras)) if str(each) not in own)


def _compare(requirement: "Requirement", upgrade: str) -> Finding | None:
    name, wanted = requirement.name, f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if name.startswith("nvidia-"):
            return note(
                f"{wanted} is not installed by pip. The GPU can only be used if the system has this library.",
                upgrade,
            )
        return problem(f"{wanted} is missing.", upgrade)
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return problem(f"{name} {version} is installed, and arcface-api needs {wanted}.", upgrade)


def runtime(subject: Subject) -> Iterator[Finding]:
    """Import the libraries in processes of their own: one that crashes there cannot take the doctor with it."""
    importlib.import_module("packaging")  # where it is missing, all packages are: the check above has said so
    if subject.why_no_commands:
        yield problem(
            f"No command of arcface-api can be loaded: {subject.why_no_commands}.",
            "Install arcface-api with one of its extras in a new environment.",
        )
    builds = [name for name in _RUNTIMES if is_installed(name)]
    if len(builds) > 1:
        yield problem(
            f"{' and '.join(builds)} are installed. They overwrite each other's files, so only one may be installed.",
            f"pip uninstall {' '.join(builds)}, then pip install 'arcface-api[cpu]' or 'arcface-api[cuda]'.",
        )
    if not builds:
        yield problem("No build of ONNX Runtime is installed.", CHOOSE)
        return
    program = "import onnxruntime; print(onnxruntime.__version__, *onnxruntime.get_available_providers())"
    answer, failure = _python(program)
    stated = metadata.version(builds[0])
    again = f"pip install --force-reinstall --no-deps {builds[0]}=={stated}"
    if failure:
        yield problem(f"ONNX Runtime cannot be imported: {failure}", again)
    elif answer[0] != re.split(r"\+|\.post", stated)[0] and len(builds) == 1:
        yield problem(f"{builds[0]} {stated} is installed, but its files are those of {answer[0]}.", again)
    elif len(builds) == 1:
        yield ok(f"{builds[0]} {stated} with {', '.join(answer[1:])}.")
    for package, module in (("openvino", "openvino"), ("opencv-python-headless", "cv2")):
        if is_installed(package):
            silence = "import sys; sys.modules['openvino_telemetry'] = None; " if module == "openvino" else ""
            answer, failure = _python(f"{silence}import {module}; print({module}.__version__)")
            if failure:
                yield problem(
                    f"{package} cannot be imported: {failure}",
                    f"pip install --force-reinstall --no-deps {package}=={metadata.version(package)}, and install the"
                    " system's library that the message names, if it names one.",
                )


def _python(program: str) -> tuple[list[str], str]:
    """The words that a program printed, and why it failed: empty if it did not."""
    command = [sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [], f"it takes longer than {IMPORT_SECONDS:g} s."
    if done.returncode < 0:
        return [], f"the process was killed by signal {-done.returncode}."
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or ["it failed without a message."])[-1]
    return done.stdout.split() or ["nothing"], ""
