"""What every process of the service shares: what the system refuses it, and the exit status that reports a hang."""

import errno

from arcface_api.errors import RuntimeUnfit

HUNG_STATUS = 70
"""Exit status of a process that ended because a decode or an inference did not (`EX_SOFTWARE` of sysexits.h)."""
_REFUSALS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}


def leave_no_core_file() -> None:
    """From here on, neither this process nor those that it starts leave one: it would hold pictures and vectors."""
    try:
        import resource  # noqa: PLC0415  # Unix only
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    # With 0, a program that the kernel pipes cores to would still get one: core(5).
    most = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def refusal(error: BaseException) -> RuntimeUnfit | None:
    """The cause of an error, if that is the system's refusal of memory, a thread, a process or a file; else None."""
    number = error.errno if isinstance(error, OSError) else None
    is_thread = isinstance(error, RuntimeError) and "can't start new thread" in str(error)
    if not (is_thread or isinstance(error, MemoryError) or number in _REFUSALS):
        return None
    return RuntimeUnfit(
        f"This system refuses what the service needs: {str(error) or 'memory'}. Raise its limits: of memory (docker"
        " --memory, ulimit -v), of threads and processes (docker --pids-limit, ulimit -u) or of open files (ulimit -n)."
    )
