"""Checks of CPUs, limits and the clock."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from arcface_api.api.connections import open_files
from arcface_api.cpus import available_cpus, cpu_quota, task_limit
from arcface_api.doctor.finding import Finding, note, ok, problem
from arcface_api.doctor.subject import Subject
from arcface_api.wording import counted

if sys.platform != "win32":
    import resource

OTHER_THREADS = 16
"""Of a worker, beside those of the models and of decoding."""
INSTALLED_SECONDS = 24 * 3600
"""How much later than now the package may have been installed: files keep the time zone's mistakes of old tools."""
SKEW_SECONDS = 300
"""How far the clock may be from that of a server."""


def cpus(subject: Subject) -> Iterator[Finding]:
    """Compare threads, lanes and workers with the CPUs that affinity and quota allow."""
    settings, places = subject.settings, subject.places
    available, quota = available_cpus(places.cgroups, places.membership), cpu_quota(places.cgroups, places.membership)
    share = max(1, available // settings.workers)
    threads = settings.threads or share
    is_well = True
    if settings.workers > available:
        is_well = False
        yield problem(f"{settings.workers} workers share {_cpus(available)}.", f"Set ARCFACE_WORKERS to {available}.")
    if threads > share:
        is_well = False
        each = " for each worker" if settings.workers > 1 else ""
        yield problem(
            f"{threads} threads share {_cpus(share)}{each} and wait for each other, which is slow.",
            "Leave ARCFACE_THREADS out.",
        )
    if (settings.lanes or 1) > threads:
        yield note(
            f"ARCFACE_LANES={settings.lanes} needs as many threads: with {counted(threads, 'thread')} there can be only"
            f" {counted(threads, 'lane')}.",
            "Leave ARCFACE_LANES out, or set it to auto.",
        )
    if quota is not None and quota != int(quota) and quota < available:
        yield note(
            f"The CPU quota is {quota:g}, and {counted(available, 'thread')} may use it: near the end of each period"
            " they wait.",
            "Make the container's CPU limit a whole number.",
        )
    if is_well:
        lanes = "as many lanes as are fastest"
        if settings.lanes is not None:
            lanes = counted(min(settings.lanes, threads), "lane")
        yield ok(f"{counted(threads, 'thread')} on {_cpus(share)}, {lanes}.")


def _cpus(number: int) -> str:
    return counted(number, "CPU")


def limits(subject: Subject) -> Iterator[Finding]:
    """Compare the limits of open files and threads with what the settings need."""
    settings, places = subject.settings, subject.places
    if sys.platform == "win32":
        return
    needed, hard = open_files(settings.max_connections), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    is_well = True
    if hard != resource.RLIM_INFINITY and hard < needed:
        is_well = False
        yield problem(
            f"{counted(hard, 'file')} may be open, and ARCFACE_MAX_CONNECTIONS={settings.max_connections} needs"
            f" {needed}: connections beyond that are closed without an answer.",
            f"Raise the limit: ulimit -n {needed}, systemd's LimitNOFILE=, or Docker's --ulimit nofile={needed}. Or"
            " lower ARCFACE_MAX_CONNECTIONS.",
        )
    available = max(1, available_cpus(places.cgroups, places.membership) // settings.workers)
    each = (settings.threads or available) + (settings.decode_threads or available) + OTHER_THREADS
    threads, most = each * settings.workers, task_limit(places.cgroups, places.membership)
    if most is not None and most < threads:
        is_well = False
        yield problem(
            f"The control group may have {counted(most, 'thread')}, and the service has about {threads}: it would fail"
            " at its start, or later under load.",
            "Raise the limit (Docker's --pids-limit, systemd's TasksMax=, Kubernetes' podPidsLimit), or lower"
            " ARCFACE_THREADS, ARCFACE_DECODE_THREADS and ARCFACE_WORKERS.",
        )
    if is_well:
        yield ok("Enough open files and threads are allowed.")


def clock(subject: Subject) -> Iterator[Finding]:
    """Compare the clock with the time of the installation, and with the servers that `sources` reached."""
    now, installed = time.time(), (subject.places.package / "__init__.py").stat().st_mtime
    set_it = "Set the clock: timedatectl set-ntp true, or chronyd; a virtual machine takes it from its host."
    if now < installed - INSTALLED_SECONDS:
        yield problem(
            f"The clock says {_date(now)}, but this package was installed on {_date(installed)}. TLS certificates"
            " seem invalid to a machine with a wrong clock.",
            set_it,
        )
        return
    try:
        from arcface_api.doctor.sources import reach_sources  # noqa: PLC0415  # it needs what may be missing

        reached = subject.once(reach_sources)
    except Exception:  # noqa: BLE001  # `sources` reports it
        reached = ()
    skews = [(each.skew_seconds, each.name) for each in reached if each.skew_seconds is not None]
    skew, name = min(skews, key=lambda pair: abs(pair[0]), default=(0.0, ""))
    if abs(skew) > SKEW_SECONDS:
        yield problem(
            f"The clock is {abs(skew) / 60:.0f} minutes {'behind' if skew < 0 else 'ahead of'} that of {name}.", set_it
        )
    else:
        yield ok(f"{_date(now)} UTC" + (f", as by the clock of {name}." if name else ", after the installation."))


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
