"""What the service writes to stderr."""

import logging
import sys

from arcface_api.settings import Settings


def log_to_stderr(settings: Settings) -> None:
    """Log from `log_level` on; where several processes log into one stream, each line names its process."""
    process = " [%(process)d]" if settings.workers > 1 else ""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)s{process} %(message)s",
        stream=sys.stderr,
    )
    # The one tells of every download's steps, the other of its own start, which is not the service's.
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
