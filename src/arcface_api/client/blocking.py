"""`Client`: does what the core's generators yield, with httpx and threads, and decides nothing itself."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import httpx

from arcface_api.client.answers import Answer, Embedding, Health, Info
from arcface_api.client.connection import Connection
from arcface_api.client.effects import Call, Effect, End, Enter, Give, IsDone, Join, Pull, Read, Send, Sleep, Start, T
from arcface_api.client.gate import Ticket
from arcface_api.client.images import Encoded, ImageLike, Options, Picture, encoded, several
from arcface_api.client.problems import ImageUnreadable, ServiceUnreachable
from arcface_api.errors import ArcFaceError

Job: TypeAlias = tuple[Future[Any], Call[Any]]


class Client(Connection[httpx.Client]):
    """Embeds pictures with a running service. One client may be shared by all threads, and used after a fork.

    Every call is repeated while the service is full, restarting or unreachable, for up to `retry_seconds`. That does no
    harm: the service stores nothing. (A request whose answer was lost may run twice there.)

        >>> from arcface_api.client import Client
        >>> with Client("http://localhost:5555") as client:
        ...     embedding = client.embed("face.jpg")
        >>> embedding.vector.dtype, embedding.vector.shape
        (dtype('float32'), (512,))
    """

    def _open(self, **settings: Any) -> httpx.Client:
        self._never = threading.Event()
        return httpx.Client(**settings)

    def embed(self, image: ImageLike | Picture, **options: Unpack[Options]) -> Embedding:
        """Embed the picture of one face crop.

            >>> client.embed("face.jpg", normalize=True, include_quality=True).quality.face_size_px > 0
            True

        Args:
            image: The bytes of a JPEG, PNG or WebP file, its path, the file opened in binary mode, an array (h, w, 3)
                uint8 in RGB order, a Pillow image, or a `Picture` with its landmarks.
            options: As `Options` lists them.

        Raises:
            RequestError: The picture or an option is refused, or the service's model is another one than required.
            ServiceBusy, ServiceUnreachable: There was no answer within `retry_seconds`.
            ServiceFailed, AnswerInvalid: There was a useless one.
        """
        return self._run(self._core.embed(image, options))

    def embed_many(
        self, images: Iterable[ImageLike | Picture], **options: Unpack[Options]
    ) -> Iterator[Embedding | ArcFaceError]:
        """Embed many pictures: for each, in order, its embedding, or the error that concerns it alone.

        Sends several requests at once, with as many pictures as `/info` allows and fewer after a refusal. Takes
        pictures from `images` in the calling thread, at most 8 requests ahead of the results: memory stays the same
        however many there are. Results that have arrived are given before the next picture is taken.

            >>> for name, result in zip(["face.jpg", "missing.jpg"], client.embed_many(["face.jpg", "missing.jpg"])):
            ...     print(name, result.code if isinstance(result, Exception) else result.vector.shape)
            face.jpg (512,)
            missing.jpg image_unreadable

        Raises:
            ArcFaceError: As for `embed`, what concerns all pictures: the service cannot be reached, refuses an option,
                or has changed its model. All results before it were given; go on after them with the rest.
            TypeError: `images` is a single picture.
            Exception: What `images` raises, after the results of all pictures before it.
        """
        call, source = self._core.embed_many(options), iter(several(images))
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        has_left, workers = threading.Event(), 0
        value: Any = None
        try:
            while True:
                try:
                    effect = call.send(value)
                except StopIteration:
                    return
                value = None
                match effect:
                    case Pull():
                        value = _pulled(source)
                    case Start(started):
                        jobs.put((value := Future(), started))
                        if workers < self._requests_at_once:
                            workers += 1
                            # A daemon, so that the program can end while a request waits for its answer.
                            threading.Thread(
                                target=self._work, args=(jobs, has_left), name="arcface-client", daemon=True
                            ).start()
                    case IsDone(flight):
                        value = flight.done()
                    case Join(flight):
                        value = flight.result()
                    case Give(results):
                        yield from results
                    case _:
                        value = self._do(effect, has_left)
        finally:
            has_left.set()
            for _ in range(workers):
                jobs.put(None)
            call.close()

    def similarity(
        self,
        one: Embedding | ImageLike | Picture,
        other: Embedding | ImageLike | Picture,
        **options: Unpack[Options],
    ) -> float:
        """The cosine similarity of two pictures or embeddings, -1 … 1. `options` are those of the pictures.

            >>> round(client.similarity("face.jpg", embedding), 4)
            1.0

        Raises:
            FingerprintDiffers: The two are of different models.
            RecipeDiffers: They were made in different ways, for example with other options. `auto` and `unsure`, the
                outcomes of `align="auto"`, may be compared, with care.
            ArcFaceError: As for `embed`.
        """
        return self._run(self._core.similarity(one, other, options))

    def threshold(self, far: float) -> float:
        """The similarity from which on two aligned pictures may count as one person, at this false accept rate.

        If `/info` has no threshold for this rate, it is that of the next lower one.

        Raises:
            ThresholdUnknown: There is none; measure one with `arcface-api evaluate`.
        """
        return self._run(self._core.threshold(far))

    def info(self) -> Info:
        """The service's model, fingerprint, thresholds and limits.

        >>> client.info().embedding_dim
        512
        """
        return self._run(self._core.info())

    def health(self) -> Health:
        """Whether the service can embed. Asks once, without repeating.

        >>> client.health().is_ok
        True
        """
        return self._run(self._core.health())

    def close(self) -> None:
        """Close the connections. `with Client() as client:` does it, too."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, jobs: SimpleQueue[Job | None], has_left: threading.Event) -> None:
        """Run the calls of one `embed_many`, one after another, until it is left."""
        while (job := jobs.get()) and not has_left.is_set():
            flight, call = job
            try:
                flight.set_result(self._run(call, has_left))
            except BaseException as error:  # noqa: BLE001  # `Join` raises it
                flight.set_exception(error)

    def _run(self, call: Call[T], has_left: threading.Event | None = None) -> T:
        """Do what a call yields, to its end. `has_left`: set when nobody waits for it any more."""
        value = None
        try:
            while True:
                try:
                    effect = call.send(value)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # a Call[T] returns T
                value = self._do(effect, has_left or self._never)
        finally:
            call.close()

    def _do(self, effect: Effect, has_left: threading.Event) -> Any:
        match effect:
            case Send():
                outcome = self._send(effect)
                if has_left.is_set():
                    raise _Abandoned
                return outcome
            case Read(picture):
                return encoded(picture)
            case Enter(pictures):
                return self._enter(pictures, has_left)
            case Sleep(seconds):
                if has_left.wait(seconds):
                    raise _Abandoned
        return None

    def _send(self, send: Send) -> Answer | ServiceUnreachable:
        until, content = time.monotonic() + self._timeout_seconds, bytearray()
        try:
            with self._http.stream(**self._request(send)) as answer:
                for chunk in answer.iter_bytes():
                    content += chunk
                    if time.monotonic() > until:  # httpx only limits each pause
                        return self._unreachable(TimeoutError())
                return Answer(answer.status_code, answer.headers, bytes(content))
        except (httpx.TransportError, httpx.DecodingError) as error:
            return self._unreachable(error)

    def _enter(self, pictures: int, has_left: threading.Event) -> Ticket:
        opened = threading.Event()
        ticket = self._core.gate.ask(pictures, opened.set)
        try:
            opened.wait()
        except BaseException:
            self._core.gate.leave(ticket)
            raise
        if has_left.is_set():
            self._core.gate.leave(ticket)
            raise _Abandoned
        return ticket


def _pulled(source: Iterator[ImageLike | Picture]) -> Encoded | ImageUnreadable | End:
    try:
        return encoded(next(source))
    except StopIteration:
        return End()
    except Exception as error:  # noqa: BLE001  # the core raises it, after the results that are due
        return End(error)


class _Abandoned(Exception):
    """The caller has left `embed_many`; nobody sees this."""
