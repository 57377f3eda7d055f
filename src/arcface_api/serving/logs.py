"""The log on stderr: lines for people on a terminal, otherwise a JSON object a line for programs."""

import json
import logging
import os
import time
from typing import Any

from arcface_api.api.request_log import identify
from arcface_api.settings import Settings

_ACCESS_LOG = "uvicorn.access"
_ACCESS_FIELDS = ("client", "method", "path", "http_version", "status")
"""Of what uvicorn logs for each request, in its order."""


def log_to_stderr(settings: Settings) -> None:
    """Log from `log_level` on, in `log_format`.

    A log that cannot be written, as on a full disk, changes nothing else: what `sys.stderr` could not write would keep
    workers from starting.
    """
    logging.raiseExceptions = False
    stream = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    is_json = settings.log_format == "json" or (settings.log_format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(identify)
    handler.setFormatter(JsonLines() if is_json else Lines(names_process=settings.workers > 1))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # httpx logs every step of a download, and uvicorn its own start, which is not the service's.
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class Lines(logging.Formatter):
    """For people: time, level, message, and the request that it is about."""

    def __init__(self, *, names_process: bool) -> None:
        """`names_process`: of several."""
        super().__init__(f"%(asctime)s %(levelname)s{' [%(process)d]' if names_process else ''} %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """One line."""
        request_id = getattr(record, "request_id", "")
        return super().formatMessage(record) + (f" (request {request_id})" if request_id else "")


class JsonLines(logging.Formatter):
    """For programs: an object with `time` (UTC), `level`, `message`, `logger`, `process`, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "process": record.process,
        }
        for name in ("request_id", "trace_id"):
            if value := getattr(record, name, ""):
                entry[name] = value
        entry |= getattr(record, "fields", {})
        if record.name == _ACCESS_LOG and isinstance(record.args, tuple):
            entry |= dict(zip(_ACCESS_FIELDS, record.args, strict=False))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)
