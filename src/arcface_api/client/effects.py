"""What the core's generators yield: what is to be done next, and what they get for it."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from arcface_api.client.answers import Embedding
from arcface_api.client.images import ImageLike, Picture
from arcface_api.errors import ArcFaceError

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request; gives its `Answer`, or a `ServiceUnreachable`. Repeating it does no harm."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Enter:
    """Wait until the gate lets pictures in; gives their `Ticket`."""

    pictures: int


@dataclass(frozen=True)
class Read:
    """Encode a picture; gives an `Encoded`, or an `ImageUnreadable`."""

    picture: ImageLike | Picture


@dataclass(frozen=True)
class Pull:
    """Take the caller's next picture; gives as `Read`, or an `End`."""


@dataclass(frozen=True)
class Start:
    """Run a generator beside this one; gives what `Join` takes."""

    call: "Call[Any]"


@dataclass(frozen=True)
class IsDone:
    """Whether `Join` would not have to wait."""

    started: Any


@dataclass(frozen=True)
class Join:
    """Wait for what was started; gives what it returned, or raises what it raised."""

    started: Any


@dataclass(frozen=True)
class Give:
    """Give results to the caller."""

    results: Sequence[Embedding | ArcFaceError]


@dataclass(frozen=True)
class End:
    """There is no further picture."""

    error: Exception | None = None
    """What the caller's iterable raised."""


Effect: TypeAlias = Send | Sleep | Enter | Read | Pull | Start | IsDone | Join | Give
Call: TypeAlias = Generator[Effect, Any, T]
