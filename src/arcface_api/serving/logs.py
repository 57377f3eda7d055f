"""The log on stderr: lines for people on a terminal, otherwise a JSON object a line for programs.

Nothing of a picture, a vector or a query reaches it, whatever is logged: of an exception it has the class and where it
was raised, and not its message, which may hold what the code worked on (docs/privacy.md).
"""

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any

from arcface_api.api.log_limit import LogLimit
from arcface_api.api.request_log import identify
from arcface_api.errors import ArcFaceError
from arcface_api.settings import Settings

_ACCESS_LOG = "uvicorn.access"
_WORDS = re.compile("[A-Za-z ]*")
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
    handler.addFilter(_without_data)  # before lines are counted: what it takes away makes each line a kind of its own
    handler.addFilter(LogLimit(handler, settings.log_lines_per_minute))
    handler.addFilter(identify)
    handler.setFormatter(JsonLines() if is_json else Lines(names_process=settings.workers > 1))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    # httpx logs every step of a download, and uvicorn its own start, which is not the service's.
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    # What Python itself would write to stderr, messages included.
    sys.excepthook = lambda kind, error, trace: _log_unhandled("This process", kind, error, trace)
    threading.excepthook = lambda args: _log_unhandled("A thread", args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_unhandled("A finaliser", args.exc_type, args.exc_value, args.exc_traceback)


def _log_unhandled(
    what: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if issubclass(kind, SystemExit):  # how a thread may end
        return
    logging.getLogger(__name__).critical("%s ended with an exception:", what, exc_info=(kind, error or kind(), trace))


def _without_data(record: logging.LogRecord) -> bool:
    """A filter of the handler that drops nothing: takes away what callers chose, or what code worked on."""
    if record.name == _ACCESS_LOG and isinstance(record.args, tuple) and len(record.args) == len(_ACCESS_FIELDS):
        client, method, path, *others = record.args
        record.args = (client, method, str(path).partition("?")[0], *others)
    elif record.name == "asyncio":  # it shows the arguments of callbacks, and the results of tasks
        words = _WORDS.match(record.getMessage())
        record.msg, record.args = words[0].strip() if words else "", ()
    return True


def traceback_without_messages(error: BaseException | None) -> str:
    """Classes and places of an exception and of those that caused it, the first cause first.

    Only our own errors, the system's and the runtime's have messages: no other is known to hold no data.
    """
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    texts = []
    for each in reversed(chain):
        kind = type(each)
        is_safe = isinstance(each, ArcFaceError | OSError | MemoryError) or kind.__module__.startswith("onnxruntime")
        frames = "".join(traceback.format_tb(each.__traceback__))
        texts.append(f"Traceback (most recent call last):\n{frames}{kind.__qualname__}{f': {each}' if is_safe else ''}")
    return "\n\nwhich led to:\n\n".join(texts)


class Lines(logging.Formatter):
    """For people: time, level, message, and the request that it is about."""

    def __init__(self, *, names_process: bool) -> None:
        """`names_process`: of several."""
        super().__init__(f"%(asctime)s %(levelname)s{' [%(process)d]' if names_process else ''} %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """One line."""
        request_id = getattr(record, "request_id", "")
        return super().formatMessage(record) + (f" (request {request_id})" if request_id else "")

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """What is known of the exception, without its message."""
        return traceback_without_messages(ei[1])


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
            entry["traceback"] = traceback_without_messages(record.exc_info[1])
        return json.dumps(entry, ensure_ascii=False, default=str)
