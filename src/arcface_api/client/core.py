"""All that a client decides, without a network, a clock or a thread: generators that yield what is to be done.

`Client` and `AsyncClient` only do it: each sends what a generator yields, and passes back what came of it.
One module, because each of its calls is made of smaller ones: a group of batches, a batch of attempts.
"""

import json
import logging
import random
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from arcface_api.client.answers import (
    Answer,
    Embedding,
    Health,
    Info,
    read_batch,
    read_embedding,
    read_health,
    read_info,
    similarity,
)
from arcface_api.client.effects import Call, End, Enter, Give, IsDone, Join, Pull, Read, Send, Sleep, Start
from arcface_api.client.gate import Gate, Outcome, Ticket
from arcface_api.client.images import Encoded, ImageLike, Options, Picture
from arcface_api.client.problems import AnswerInvalid, ImageUnreadable, ServiceUnreachable, error_of
from arcface_api.errors import (
    ArcFaceError,
    BodyTooLarge,
    FingerprintDiffers,
    ServiceBusy,
    ServiceFailed,
    TooManyFiles,
    UploadStalled,
)

REQUEST_PICTURES, REQUEST_BYTES = 32, 8 * 1024 * 1024
"""Most in one request of `embed_many`: several batches of the service, whose lanes take at most eight crops each."""
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 10.0
"""Where no Retry-After says it: the first wait is at most so long, each further one at most twice that."""

_log = logging.getLogger("arcface_api.client")


class Core:
    """What both clients share. Its generators may run in several threads at once."""

    def __init__(
        self,
        *,
        fingerprint: str | None,
        recipe: str | None,
        retry_seconds: float,
        timeout_seconds: float,
        requests: int,
    ) -> None:
        """`requests`: those of one `embed_many` under way at once."""
        required = {"X-Require-Fingerprint": fingerprint, "X-Require-Recipe": recipe}
        self._headers = {name: value for name, value in required.items() if value}
        self._headers["X-Request-Timeout"] = f"{0.9 * timeout_seconds:g}"  # so that a late answer still arrives
        self._retry_seconds, self._requests = retry_seconds, requests
        self._known_info: Info | None = None
        self.gate = Gate()

    def embed(self, picture: ImageLike | Picture, options: Options) -> Call[Embedding]:
        """Embed one picture."""
        query, image = _query(options), (yield Read(picture))
        if isinstance(image, ImageUnreadable):
            raise image
        if image.landmarks is None:
            headers, content = {"Content-Type": "application/octet-stream"}, image.content
        else:
            headers, content = _form("file", [image])
        send = Send("POST", "/embed", query, self._headers | headers, content)
        return read_embedding((yield from self._answer(send, pictures=1)))

    def similarity(
        self, one: Embedding | ImageLike | Picture, other: Embedding | ImageLike | Picture, options: Options
    ) -> Call[float]:
        """The cosine similarity of two pictures or embeddings."""
        if not isinstance(one, Embedding):
            one = yield from self.embed(one, options)
        if not isinstance(other, Embedding):
            other = yield from self.embed(other, options)
        return similarity(one, other)

    def threshold(self, far: float) -> Call[float]:
        """The similarity for a false accept rate."""
        return (yield from self.info()).threshold(far)

    def embed_many(self, options: Options) -> Call[None]:
        """Embed all pictures that the caller has, and give the results in their order, as soon as they are there."""
        query, fingerprint = _query(options), ""
        limits = (self._known_info or (yield from self.info())).limits
        most = min(REQUEST_PICTURES, limits.max_batch_files, limits.queue_capacity)
        most_bytes = min(REQUEST_BYTES, limits.max_batch_bytes)
        most_flying = 2 * self._requests  # while the oldest waits for its Retry-After, others are ready to go
        flying: deque[Any] = deque()
        group: list[Encoded | ArcFaceError] = []
        image, size = (yield Pull()), 0
        while group or flying or not isinstance(image, End):
            has_ended, more = isinstance(image, End), len(image.content) if isinstance(image, Encoded) else 0
            is_whole = has_ended or len(group) == most or size + more > most_bytes
            if group and is_whole and len(flying) < most_flying:
                flying.append((yield Start(self._group(group, query))))
                group, size = [], 0
            elif flying and (has_ended or len(flying) == most_flying or (yield IsDone(flying[0]))):
                results: list[Embedding | ArcFaceError] = yield Join(flying.popleft())
                for embedding in results:
                    if isinstance(embedding, Embedding):
                        fingerprint = fingerprint or embedding.fingerprint
                        _check_model(embedding, fingerprint)
                yield Give(results)
            else:
                group.append(image)
                image, size = (yield Pull()), size + more
        if image.error:
            raise image.error

    def info(self) -> Call[Info]:
        """What `/info` reports now."""
        info = self._known_info = read_info((yield from self._answer(Send("GET", "/info"))))
        self.gate.has_capacity(info.limits.queue_capacity)
        return info

    def health(self) -> Call[Health]:
        """What `/health` reports now, without a second attempt."""
        answer = yield from self._attempt(Send("GET", "/health"), pictures=0)
        if isinstance(answer, ArcFaceError):
            raise answer
        try:
            return read_health(answer)  # also of a service that cannot embed, with status 503
        except AnswerInvalid:
            if answer.status == 200:
                raise
            raise error_of(answer.status, answer.headers, answer.content) from None

    def _group(
        self, group: Sequence[Encoded | ArcFaceError], query: Mapping[str, str]
    ) -> Call[list[Embedding | ArcFaceError]]:
        """The results of pictures that are sent together, in order; those that cannot be sent are errors already."""
        images = [each for each in group if isinstance(each, Encoded)]
        results = iter((yield from self._batch(images, query)) if images else [])
        return [next(results) if isinstance(each, Encoded) else each for each in group]

    def _batch(self, images: Sequence[Encoded], query: Mapping[str, str]) -> Call[list[Embedding | ArcFaceError]]:
        headers, content = _form("files", images)
        send = Send("POST", "/embed/batch", query, self._headers | headers, content)
        try:
            answer = yield from self._answer(send, len(images))
        except (BodyTooLarge, TooManyFiles, ServiceFailed) as error:
            if len(images) == 1:  # it alone is the cause
                return [error]
            half = len(images) // 2
            return [*(yield from self._batch(images[:half], query)), *(yield from self._batch(images[half:], query))]
        return read_batch(answer, len(images))

    def _answer(self, send: Send, pictures: int = 0) -> Call[Answer]:
        """The answer with status 200, after as many attempts as the time allows; raises the error of the last one."""
        naps: list[float] = []
        attempts = Retrying(
            sleep=naps.append,
            retry=retry_if_exception(_may_pass),
            wait=_wait,
            stop=stop_before_delay(self._retry_seconds),
            reraise=True,
        )
        for attempt in attempts:
            if naps:
                yield Sleep(naps.pop())
            outcome = yield from self._attempt(send, pictures)
            with attempt:
                if isinstance(outcome, ServiceUnreachable):
                    self._report(outcome, attempt.retry_state)
                    raise outcome
                if outcome.status != 200:
                    raise error_of(outcome.status, outcome.headers, outcome.content)
                return outcome
        raise AssertionError("the loop above returns or raises")

    def _attempt(self, send: Send, pictures: int) -> Call[Answer | ServiceUnreachable]:
        """One attempt, within what the gate allows."""
        ticket: Ticket | None = (yield Enter(pictures)) if pictures else None
        became = Outcome.OTHER
        try:
            outcome: Answer | ServiceUnreachable = yield send
            if isinstance(outcome, Answer):
                is_refused = outcome.status in (429, 503)
                became = Outcome.REFUSED if is_refused else Outcome.SERVED if outcome.status == 200 else Outcome.OTHER
        finally:
            if ticket:
                self.gate.leave(ticket, became)
        return outcome

    def _report(self, error: ServiceUnreachable, state: RetryCallState) -> None:
        """Say once a request why nothing happens: otherwise a wrong address would look like a slow service."""
        if state.attempt_number == 1 and error.may_pass and self._retry_seconds > 0:
            _log.warning("%s Trying again for up to %g s.", error, self._retry_seconds)


def _check_model(embedding: Embedding, fingerprint: str) -> None:
    """Raises `FingerprintDiffers` if the service has changed its model since its first embedding."""
    if embedding.fingerprint != fingerprint:
        raise FingerprintDiffers(
            f"The service changed its model: the fingerprint was {fingerprint} and is now {embedding.fingerprint}."
            " Embeddings of two models cannot be compared: embed all pictures again, or use a service that has the"
            " first model."
        )


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ServiceBusy | UploadStalled) or (isinstance(error, ServiceUnreachable) and error.may_pass)


_backoff = wait_random_exponential(multiplier=BACKOFF_SECONDS, max=MAX_BACKOFF_SECONDS)


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: as the service asks, and up to a quarter more, so that not all come at once."""
    error = state.outcome.exception() if state.outcome else None
    seconds: int | None = getattr(error, "retry_after_seconds", None)
    if seconds is None:
        return _backoff(state)
    return seconds + random.uniform(0, 0.1 + seconds / 4)  # noqa: S311  # nobody gains by guessing it


def _query(options: Options) -> dict[str, str]:
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"There is no option {', '.join(unknown)}. Allowed are {', '.join(Options.__annotations__)}.")
    shown = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}
    return shown | {"encoding": "base64"}  # to the bit, and half as long as decimals


def _form(part: str, images: Sequence[Encoded]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a form (RFC 7578) with pictures in parts of one name."""
    boundary = secrets.token_hex(16)  # that no picture contains it is certain enough
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="picture"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    parts = [piece for image in images for piece in (head, image.content, b"\r\n")]
    if any(image.landmarks is not None for image in images):
        landmarks = [image.landmarks for image in images]
        text = json.dumps(landmarks if part == "files" else landmarks[0])
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="landmarks"\r\n\r\n{text}\r\n'.encode())
    parts.append(f"--{boundary}--\r\n".encode())
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, b"".join(parts)
