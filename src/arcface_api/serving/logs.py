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
    logging.getLogger("httpx").setLevel(logging.WARNING)
