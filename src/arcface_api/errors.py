"""Every error that this package raises on purpose.

    ArcFaceError
    ├── RequestError       the caller can fix it by sending something else
    ├── ServiceFailed      the service failed on this request
    ├── ServiceBusy        the service cannot serve the request now; the same request may succeed later
    ├── RuntimeUnfit … SettingInvalid            met by the person at the command line, never by an HTTP caller
    ├── EvaluationError    the person who evaluates can fix it
    ├── BulkError          the person who embeds many pictures into a file can fix it
    └── PackError          the person who runs the service can fix it

`api/problems.py` decides which HTTP status an error becomes; `client/problems.py` makes the error of a problem again.
One long module, because readers look for one tree.
"""

import copyreg
import secrets
from contextlib import suppress
from typing import Any, ClassVar

from arcface_api.wording import counted


class ArcFaceError(Exception):
    """Base of all errors. `str(error)` is for people: what was wrong, what is allowed, what to do."""

    code: ClassVar[str]
    """Stable name for programs. Only errors that an HTTP caller can meet have one."""
    retry_after_seconds: int
    """When the same request may succeed. Only errors for which that is known have it."""

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        super().__init_subclass__()
        if code is not None:
            cls.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its sentence: some `__init__` take what the sentence is made of."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # not in its stub


def reference_of(error: BaseException) -> str:
    """The reference under which the log describes an error whose text no caller may see; a new one if it has none."""
    reference: str | None = getattr(error, "reference", None)
    if reference is None:
        reference = secrets.token_hex(4)
        with suppress(AttributeError, TypeError):  # an exception without room for it
            error.reference = reference  # type: ignore[attr-defined]  # any exception may carry one
    return reference


class RequestError(ArcFaceError):
    """The request cannot be served; a different one can."""


class RequestMalformed(RequestError, code="request_malformed"):
    """The bytes received are not an HTTP request."""


class ClientCertificateMissing(RequestError, code="client_certificate_missing"):
    """The service is set to serve callers with a certificate alone, and the caller has sent none."""

    def __init__(self) -> None:
        super().__init__(
            "This service serves callers with a certificate alone, and you sent none. Send the one that its operator"
            " gave you, with its key (curl --cert FILE --key FILE)."
        )


class RequestHeadTooLarge(RequestError, code="request_head_too_large"):
    """The request line, a header, or all of them together are too long, or the headers too many."""


class Unauthenticated(RequestError, code="unauthenticated"):
    """The service asks for an API key, and the request has none that it knows."""


class Forbidden(RequestError, code="forbidden"):
    """A web page of another origin sent the request, and no setting allows that."""


class HostNotAllowed(RequestError, code="host_not_allowed"):
    """The service may not be called under the name in the request's Host header."""


class UploadStalled(RequestError, code="upload_stalled"):
    """The request body stopped arriving, arrived too slowly, or took too long."""


class BodyTooLarge(RequestError, code="body_too_large"):
    """The request body, or an image in it, is larger than allowed."""


class ContentTypeUnsupported(RequestError, code="content_type_unsupported"):
    """This operation does not read the request's Content-Type, or the request's body is compressed."""


class MultipartMalformed(RequestError, code="multipart_malformed"):
    """The multipart form cannot be read."""


class JsonMalformed(RequestError, code="json_malformed"):
    """The body is not JSON in UTF-8, or not an object of the kind that is read."""


class Base64Invalid(RequestError, code="base64_invalid"):
    """A picture in a JSON body is not base64, or not a string."""


class FileMissing(RequestError, code="file_missing"):
    """The form has no part with an image (`file`, or `files` for a batch), or the JSON no key (`image`, `images`)."""


class FileRepeated(RequestError, code="file_repeated"):
    """The form has more than one part named `file`, or the JSON a key twice."""


class TooManyFiles(RequestError, code="too_many_files"):
    """The request has more pictures than one batch request may have."""


class ParameterInvalid(RequestError, code="parameter_invalid"):
    """A query parameter is unknown, repeated, sent in the body, or has a forbidden value; or a JSON key is unknown."""


class ParametersConflict(RequestError, code="parameters_conflict"):
    """Two options are each allowed but contradict each other."""


class NotAcceptable(RequestError, code="not_acceptable"):
    """The Accept header allows no representation that the service can send."""


class ImageEmpty(RequestError, code="image_empty"):
    """The image has no bytes."""


class ImageFormatUnsupported(RequestError, code="image_format_unsupported"):
    """The image is neither JPEG, PNG nor WebP."""


class ImageTooManyPixels(RequestError, code="image_too_many_pixels"):
    """The image's header announces more pixels than allowed."""


class ImageDamaged(RequestError, code="image_damaged"):
    """The image is truncated or corrupt, or the decoder crashes on it or takes too long."""


class AttributesUnavailable(RequestError, code="attributes_unavailable"):
    """The loaded pack has no models for age, gender and head pose."""


class LandmarksInvalid(RequestError, code="landmarks_invalid"):
    """The landmarks are not five points of one face inside the picture."""


class AlignmentUnavailable(RequestError, code="alignment_unavailable"):
    """The loaded recogniser takes crops that are not square, and alignment templates are square."""


class FingerprintDiffers(RequestError, code="fingerprint_differs"):
    """The loaded model is not the one that made the caller's embeddings; the two cannot be compared."""


class RecipeDiffers(RequestError, code="recipe_differs"):
    """The embedding would be made in another way than the caller's, so that the two do not compare well."""


# ── the service ────────────────────────────────────────────────────────────────────────────────────────────────────


class ServiceFailed(ArcFaceError):
    """The service failed on this request."""


class EmbeddingInvalid(ServiceFailed, code="embedding_invalid"):
    """The model returned a vector with NaN or infinity, or of length zero."""


class ModelFailed(ServiceFailed, code="model_failed"):
    """ONNX Runtime raised an error, or returned another shape than the model announces."""


class ServiceBusy(ArcFaceError):
    """The service cannot serve the request now; the same request may succeed later."""


class QueueFull(ServiceBusy, code="queue_full"):
    """There is no room for the request's pictures now; `Retry-After` says when the present queue will be served."""

    def __init__(self, inside: int, capacity: int, more: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"The service holds {counted(capacity, 'picture')} at once; with {inside} inside there is no room for"
            f" {more} more. Send the request again in {retry_after_seconds} s, as Retry-After says, or send fewer at"
            " once."
        )
        self.retry_after_seconds = retry_after_seconds


class UploadsFull(ServiceBusy, code="uploads_full"):
    """There is no room for the bytes of one more upload now; `Retry-After` says when to send it again."""

    retry_after_seconds = 1
    """By then, the uploads in progress have usually ended."""

    def __init__(self, room: int) -> None:
        super().__init__(
            f"The uploads in progress leave no room: together they may have {room:,} bytes. Send the request again in"
            f" {self.retry_after_seconds} s, as Retry-After says, or ask the operator to raise"
            " ARCFACE_MAX_UPLOAD_BYTES_INSIDE."
        )


class RateLimited(ServiceBusy, code="rate_limited"):
    """The caller has sent as many pictures as it may in this time; `Retry-After` says when it may send more."""

    def __init__(self, limit: str, retry_after_seconds: int) -> None:
        super().__init__(
            f"The limit for one caller is {limit}. Send the request again in {retry_after_seconds} s, as Retry-After"
            " says, or ask the operator to raise ARCFACE_RATE_LIMIT."
        )
        self.retry_after_seconds = retry_after_seconds


class TooManyConnections(ServiceBusy, code="too_many_connections"):
    """The service has as many connections as it may have; `Retry-After` says when to connect again."""

    retry_after_seconds = 1

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The service has {counted(most, 'connection')} and accepts no more. Connect again in"
            f" {self.retry_after_seconds} s, use fewer connections for more requests each, or ask the operator to raise"
            " ARCFACE_MAX_CONNECTIONS."
        )


class TooManyConnectionsFromAddress(ServiceBusy, code="too_many_connections_from_address"):
    """The caller's address has as many connections as one may have; `Retry-After` says when to connect again."""

    retry_after_seconds = 1

    def __init__(self, most: int) -> None:
        super().__init__(
            f"Your address has {counted(most, 'connection')} to the service and may have no more. Connect again in"
            f" {self.retry_after_seconds} s, use fewer connections for more requests each, or ask the operator to raise"
            " ARCFACE_MAX_CONNECTIONS_PER_ADDRESS or, if you come through a proxy, to name it in"
            " ARCFACE_TRUSTED_PROXIES."
        )


class DeadlineExceeded(ServiceBusy, code="deadline_exceeded"):
    """The picture could not be served within the time allowed."""

    def __init__(self) -> None:
        super().__init__(
            "The picture could not be served within the time allowed. Send it again later, or allow more time"
            " with X-Request-Timeout."
        )


class ServiceClosing(ServiceBusy, code="service_closing"):
    """The service is shutting down and takes no new work."""

    retry_after_seconds = 1


class VectorsDrifted(ServiceBusy, code="vectors_drifted"):
    """The service has noticed that it computes other vectors than before; it answers again when it is right again."""

    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__(
            "The service has noticed that it computes other vectors than before, and answers with none of them. Send"
            f" the request again in {self.retry_after_seconds} s, as Retry-After says: it may then be right again, or"
            " replaced."
        )


class RuntimeUnfit(ArcFaceError):
    """This machine or installation cannot run what was asked for."""


class WorkerEnded(ArcFaceError):
    """A worker process ended before it could serve, and did not report why."""


class MeasurementFailed(ArcFaceError):
    """The service to be measured cannot be started or reached, or fails under load."""


class SettingInvalid(ArcFaceError):
    """A command line option or an `ARCFACE_…` variable has a value that is not allowed."""


class EvaluationError(ArcFaceError):
    """Pairs cannot be evaluated, or not all of them. Only the command line sees these, so they have no code."""


class BulkError(ArcFaceError):
    """A job of `arcface-api embed` cannot begin, or go on. Only the command line sees these, so they have no code."""


# ── packs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class PackError(ArcFaceError):
    """A model pack is missing, damaged, not what it should be, or cannot be downloaded or installed."""


class PackNotFound(PackError):
    """No such pack in any of the places searched."""


class GraphUnfit(PackError):
    """A file is no ONNX model, or one whose input or output cannot be used here."""


class StorageFull(PackError):
    """The disk has no room for the pack."""
