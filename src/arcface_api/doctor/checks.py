"""Which checks there are, and how they are run: each alone, so that none of them can keep another one from its work."""

import importlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from arcface_api.doctor.about import about
from arcface_api.doctor.finding import Finding, Report, Unknown, note
from arcface_api.doctor.masks import Mask
from arcface_api.doctor.subject import Subject
from arcface_api.progress import Progress, no_progress


@dataclass(frozen=True)
class Check:
    """One thing that is examined."""

    name: str
    """As in the report; the function of this name is in `module`."""
    module: str
    asks: str
    """The question that it answers."""
    problem: str
    """What counts as one."""
    note: str
    """What is worth knowing, although nothing is wrong; empty if there is nothing."""

    def run(self, subject: Subject) -> Iterable[Finding]:
        """What it finds. It may raise anything."""
        function = getattr(importlib.import_module(f"arcface_api.doctor.{self.module}"), self.name)
        findings: Iterable[Finding] = function(subject)
        return findings


CHECKS = (
    Check(
        "packages",
        "installation",
        "Are all Python packages there, in versions that are allowed?",
        "one is missing, or its version is not allowed",
        "another build of OpenCV beside the headless one; a package of CUDA is not installed by pip",
    ),
    Check(
        "runtime",
        "installation",
        "Can the libraries that run models be loaded?",
        "several builds of ONNX Runtime, none, or files of another version; a library cannot be imported",
        "",
    ),
    Check(
        "gpu",
        "gpu",
        "Do GPU, driver, CUDA and cuDNN fit this ONNX Runtime?",
        "the driver is too old; CUDA's or cuDNN's packages are for another version of CUDA; the device that was asked"
        " for is not there",
        "a GPU that this installation cannot use; an installation for GPUs without one",
    ),
    Check(
        "settings",
        "service",
        "Are the `ARCFACE_…` variables and the options right?",
        "a value that is not allowed; a misspelt variable; a licence of no pack; a file of API keys that cannot be"
        " used",
        "",
    ),
    Check(
        "cpus",
        "machine",
        "Do threads, lanes and workers fit the CPUs?",
        "more threads than CPUs, more workers than CPUs",
        "more lanes than threads; a quota that is no whole number of CPUs",
    ),
    Check(
        "limits",
        "machine",
        "Do the limits of the system or the container leave enough files and threads?",
        "fewer open files than `ARCFACE_MAX_CONNECTIONS` needs; fewer threads than the service has",
        "",
    ),
    Check(
        "cache",
        "storage",
        "Can compiled models be kept for the next start?",
        "the folder cannot be written, or the disk is nearly full",
        "",
    ),
    Check(
        "pack",
        "storage",
        "Is the model pack on this machine?",
        "it is not, and will not be downloaded; it cannot be understood; its folder cannot be searched",
        "it will be downloaded at the next start; the open pack is served instead; what was assumed about a model of"
        " your own",
    ),
    Check(
        "files",
        "storage",
        "Are the pack's files the ones that they should be?",
        "a file is damaged, cut short or another one (size, SHA-256)",
        "a file of the pack is not there",
    ),
    Check(
        "sources",
        "sources",
        "Can the pack's sources be reached?",
        "none answers, and the pack is not installed",
        "one does not answer (the remaining ones do, or the pack is installed)",
    ),
    Check(
        "memory",
        "storage",
        "Is there enough memory for the models?",
        "the limit is lower than the models need",
        "the limit is lower than a first start needs; other programs take the memory",
    ),
    Check(
        "clock",
        "machine",
        "Is the clock right?",
        "it is before the installation of this package, or minutes away from the clock of a source",
        "",
    ),
    Check(
        "port",
        "service",
        "Is the port free?",
        "another program has it; this machine does not have the address; the user may not use it",
        "",
    ),
    Check(
        "service",
        "service",
        "Is the service that runs on the port well?",
        "it cannot embed",
        "it is of another version than the installation, or serves another pack than the settings name",
    ),
    Check(
        "model",
        "model",
        "Which provider, precision, threads and lanes are really used?",
        "the model cannot be loaded, or the process that loads it is killed; it hardly distinguishes faces; a GPU is"
        " there and not used",
        "why nothing faster is used",
    ),
    Check(
        "bfloat16",
        "model",
        "Is the CPU's bfloat16 used (AMX, `avx512_bf16`)?",
        "the CPU has it, and OpenVINO is missing or fails",
        "the settings chose another precision, or float32 is as fast",
    ),
)
"""In the order in which they run: what explains others first, what takes seconds last."""


class _Warnings(logging.Handler):
    """Collects what is logged as a warning while a check runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def examine(subject: Subject, progress: Progress = no_progress, checks: Iterable[Check] = CHECKS) -> Report:
    """Run the checks and hide secrets. `progress` gets the name of each check. Nothing is raised."""
    mask, findings, chosen = Mask.of(subject.environment), list[Finding](), tuple(checks)
    for number, check in enumerate(chosen):
        progress(check.name, number / len(chosen), 1.0)
        for found in _run(check, subject):
            findings.append(
                replace(found, what=mask.text(found.what), remedy=mask.text(found.remedy), check=check.name)
            )
    progress("done", 1.0, 1.0)
    return Report(mask.value(about(subject)), tuple(findings))


def _run(check: Check, subject: Subject) -> list[Finding]:
    logger, warnings, findings = logging.getLogger("arcface_api"), _Warnings(), list[Finding]()
    logger.addHandler(warnings)
    try:
        findings.extend(check.run(subject))
    except Unknown as why:
        findings.append(note(f"Could not be checked: {why}."))
    except ModuleNotFoundError as error:
        findings.append(note(f"Could not be checked: the package {error.name} is missing."))
    except Exception as error:  # noqa: BLE001  # a defect in one check must not cost the others
        findings.append(note(f"Could not be checked: {type(error).__name__}: {error}"))
    finally:
        logger.removeHandler(warnings)
    said = " ".join(finding.what for finding in findings)
    return findings + [note(text) for text in warnings.texts if text not in said]
