"""What every process of the service shares: its log, and the exit status that reports a hang."""

import logging
import sys

from arcface_api.settings import Settings

HUNG_STATUS = 70
"""Exit status of a process that ended because a decode or an inference did not (`EX_SOFTWARE` of sysexits.h)."""


def log_to_stderr(settings: Settings) -> None:
    """Log from `log_level` on; with several workers, each line names its process."""
    process = " [%(process)d]" if settings.workers > 1 else ""
    logging.basicConfig(
        level=settings.log_level.upper(), format=f"%(asctime)s %(levelname)s{process} %(message)s", stream=sys.stderr
    )
    # httpx logs every step of a download, and uvicorn its own start, which is not the service's.
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
