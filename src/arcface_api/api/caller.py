"""Who waits for an answer: the connection tells when nobody does any more, and the work for it ends."""

import asyncio
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_KEY = "arcface_api.caller"


@dataclass
class _Caller:
    task: "asyncio.Task[Any]"
    has_left: bool = False


@contextmanager
def waiting_caller(scope: MutableMapping[str, Any]) -> Iterator[None]:
    """As long as this lasts, the running task is cancelled when the caller of this ASGI scope leaves."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # whoever serves a request is one
    scope[_KEY] = _Caller(task)
    try:
        yield
    finally:
        scope.pop(_KEY, None)


def leave(scope: Mapping[str, object]) -> None:
    """The connection of this scope's request is gone. Nothing happens where nobody waits."""
    caller = scope.get(_KEY)
    if isinstance(caller, _Caller):
        caller.has_left = True
        caller.task.cancel()


def has_left(scope: Mapping[str, object]) -> bool:
    """Whether the running task was cancelled because the caller left."""
    caller = scope.get(_KEY)
    return isinstance(caller, _Caller) and caller.has_left
