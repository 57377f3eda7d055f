"""Everything that can go wrong, as one tree.

    ArcFaceError
    ├── RequestError                  the caller can mend it
    │   ├── RequestMalformed          what came is no HTTP request
    │   ├── RequestHeadTooLarge       its request line, or its headers, are longer or more than allowed
    │   ├── UploadStalled             the body stopped coming, came too slowly, or took too long
    │   ├── BodyTooLarge              more bytes than one image may have
    │   ├── ContentTypeUnsupported    neither multipart/form-data nor image/jpeg, image/png, image/webp
    │   ├── MultipartMalformed        the form cannot be read
    │   ├── FileMissing               no part named "file"
    │   ├── FileRepeated              more than one part named "file"
    │   ├── TooManyFiles              more pictures than one batch request may have
    │   ├── ParameterInvalid          an unknown or misplaced query parameter, or a value that is not allowed
    │   ├── ParametersConflict        each is allowed, together they contradict
    │   ├── NotAcceptable             the Accept header leaves nothing that can be sent
    │   ├── ImageEmpty                no bytes
    │   ├── ImageFormatUnsupported    neither JPEG, PNG nor WebP
    │   ├── ImageTooManyPixels        its header announces more pixels than allowed
    │   ├── ImageDamaged              truncated, corrupt, built to cost far more than its pixels, or a decoder's end
    │   ├── LandmarksInvalid          points by which no face can be aligned
    │   ├── AttributesUnavailable     the pack lacks the models for age, gender and head pose
    │   ├── AlignmentUnavailable      the pack's recogniser takes crops that are not square
    │   └── FingerprintDiffers        the caller's embeddings come from another model than the one that is loaded
    ├── EmbeddingInvalid              the model returned NaN, infinity or zero
    ├── ModelFailed                   ONNX Runtime raised, or returned another shape than it announced
    ├── QueueFull                     no room for the pictures now
    ├── UploadsFull                   no room for the bytes of one more upload now
    ├── TooManyConnections            no room for one more connection now
    ├── DeadlineExceeded              it could not be served within the time that was given
    ├── ServiceClosing                the service is shutting down
    ├── RuntimeUnfit                  this machine or installation cannot run what was asked for
    ├── WorkerEnded                   one of several processes ended before it could serve
    ├── MeasurementFailed             the service to be measured cannot be started or reached, or fails under load
    ├── EvaluationError               the person who evaluates can correct it
    │   ├── PairsInvalid              the file of pairs cannot be read, or lacks pairs of one kind
    │   ├── AnnotationsInvalid        a face box or landmarks are missing, cannot be read, or lie outside the picture
    │   ├── PicturesMissing           pictures that the pairs name are missing or cannot be read
    │   ├── EvaluationFailed          no service, too few pictures that can be embedded, or nowhere to write
    │   └── EvaluationIncomplete      pictures could not be embedded: the figures are those of the other pairs
    ├── SettingInvalid                a command line option or ARCFACE_… variable is wrong
    └── PackError                     the person who runs the service can mend it
        ├── PackNotFound              no such pack in any of the places looked in
        ├── PackUnknown               no registered pack has that name
        ├── PackNameInvalid           a name for an import that cannot be used
        ├── PackWithoutRecogniser     none of its files turns a face into an embedding
        ├── PackAmbiguous             two of its files could fill the same role
        ├── PackManifestInvalid       a pack.toml or pack.lock.toml cannot be understood
        ├── LicenceNotAccepted        the licence of the weights has to be accepted first
        ├── SourcesExhausted          no source gave the pack
        ├── DownloadFailed            one source did not give what it should
        ├── ModelIsLfsPointer         a Git LFS pointer instead of a model
        ├── ModelIsHtml               a web page instead of a model or archive
        ├── ModelTruncated            shorter than it must be
        ├── ModelHashWrong            its bytes are not the registered ones
        ├── ModelHashChanged          its bytes are not those of its first use
        ├── ModelUnreadable           the file cannot be read
        ├── GraphUnfit                an ONNX model with an input or output that cannot be used
        ├── ArchiveDamaged            not a zip archive, or a broken one
        ├── ArchiveTooLarge           a member unpacks to more than it may: a zip bomb
        ├── ArchiveEscapes            a member's name points out of the folder
        ├── StorageFull               no space left for the pack
        └── StorageUnwritable         the folder for packs cannot be written

`str(error)` is written for people: what was wrong, what is allowed, what to do. `code` is stable and written for
programs. Which HTTP status an error becomes is decided in one table, `api/problems.py`. One long module,
because one tree is what a reader looks for.
"""

from typing import ClassVar, Self


class ArcFaceError(Exception):
    """Base of every error this package raises on purpose."""

    code: ClassVar[str]


class RequestError(ArcFaceError):
    """What was sent cannot be served; sending something else can."""


class RequestMalformed(RequestError):
    """What came is no HTTP request."""

    code = "request_malformed"


class RequestHeadTooLarge(RequestError):
    """The request line, a header, or all of them together are longer than allowed, or the headers are too many."""

    code = "request_head_too_large"


class UploadStalled(RequestError):
    """The request body stopped coming, came too slowly, or took too long."""

    code = "upload_stalled"


class BodyTooLarge(RequestError):
    """The request body, or an image in it, is larger than allowed."""

    code = "body_too_large"


class ContentTypeUnsupported(RequestError):
    """The request's Content-Type is none that this operation reads."""

    code = "content_type_unsupported"


class MultipartMalformed(RequestError):
    """The multipart form cannot be read."""

    code = "multipart_malformed"


class FileMissing(RequestError):
    """The form has no part with an image: `file`, of a batch `files`."""

    code = "file_missing"


class FileRepeated(RequestError):
    """The form has more than one part named `file`."""

    code = "file_repeated"


class TooManyFiles(RequestError):
    """The form has more pictures than one batch request may have."""

    code = "too_many_files"


class ParameterInvalid(RequestError):
    """A query parameter is unknown, repeated, stands in the form, or has a value that is not allowed."""

    code = "parameter_invalid"


class ParametersConflict(RequestError):
    """Two options are each allowed but contradict each other."""

    code = "parameters_conflict"


class NotAcceptable(RequestError):
    """The Accept header leaves no representation that can be sent."""

    code = "not_acceptable"


class ImageEmpty(RequestError):
    """The image has no bytes."""

    code = "image_empty"


class ImageFormatUnsupported(RequestError):
    """The bytes are neither JPEG, PNG nor WebP."""

    code = "image_format_unsupported"


class ImageTooManyPixels(RequestError):
    """The image's header announces more pixels than allowed."""

    code = "image_too_many_pixels"


class ImageDamaged(RequestError):
    """The image is truncated or corrupt, or the decoder crashes on it or takes too long."""

    code = "image_damaged"


class AttributesUnavailable(RequestError):
    """The loaded pack lacks the models for age, gender and head pose."""

    code = "attributes_unavailable"


class LandmarksInvalid(RequestError):
    """The landmarks are not five points of one face inside the picture."""

    code = "landmarks_invalid"


class AlignmentUnavailable(RequestError):
    """The loaded recogniser takes crops that are not square; templates, by which faces are aligned, are."""

    code = "alignment_unavailable"


class FingerprintDiffers(RequestError):
    """The loaded model is not the one whose embeddings the caller has; the two must not be compared."""

    code = "fingerprint_differs"


class EmbeddingInvalid(ArcFaceError):
    """The model returned a vector with NaN or infinity, or of length zero."""

    code = "embedding_invalid"


class ModelFailed(ArcFaceError):
    """ONNX Runtime raised, or returned another shape than the model announces."""

    code = "model_failed"


class QueueFull(ArcFaceError):
    """No room for the request's pictures now; `Retry-After` says when the present queue will have been served."""

    code = "queue_full"

    def __init__(self, inside: int, capacity: int, more: int, retry_after_seconds: int) -> None:
        """Say how many are inside of those that may be, how many more were sent, and when to come back."""
        super().__init__(
            f"The service holds {capacity} pictures at once; with {inside} inside there is no room for {more} more."
            f" Send the request again in {retry_after_seconds} s, as Retry-After says, or send fewer at once."
        )
        self.retry_after_seconds = retry_after_seconds


class UploadsFull(ArcFaceError):
    """No room for the bytes of one more upload now; `Retry-After` says when to come back."""

    code = "uploads_full"
    retry_after_seconds = 1
    """Uploads take that long, or have failed by then."""

    @classmethod
    def of(cls, room: int) -> Self:
        """The error of a service that has room for so many bytes."""
        return cls(
            f"The uploads in progress fill the {room:,} bytes that they may have together. Send the"
            f" request again in {cls.retry_after_seconds} s, as Retry-After says, or ask the operator to raise"
            " ARCFACE_MAX_UPLOAD_BYTES_INSIDE."
        )


class TooManyConnections(ArcFaceError):
    """The service has as many connections as it may have; `Retry-After` says when to come back."""

    code = "too_many_connections"
    retry_after_seconds = 1

    @classmethod
    def of(cls, most: int) -> Self:
        """The error of a service that may have so many."""
        return cls(
            f"The service has the {most:,} connections that it may have. Connect again in {cls.retry_after_seconds} s,"
            " use fewer connections for more requests each, or ask the operator to raise ARCFACE_MAX_CONNECTIONS."
        )


class DeadlineExceeded(ArcFaceError):
    """The picture could not be served within the time that was given."""

    code = "deadline_exceeded"

    @classmethod
    def told(cls) -> Self:
        """The error with its only sentence."""
        return cls(
            "The picture could not be served within the time that was given. Send it again later, or allow more time"
            " with X-Request-Timeout."
        )


class ServiceClosing(ArcFaceError):
    """The service is shutting down and takes no new work."""

    code = "service_closing"


class RuntimeUnfit(ArcFaceError):
    """This machine or installation cannot run what was asked for."""

    code = "runtime_unfit"


class WorkerEnded(ArcFaceError):
    """A worker process ended before it could serve, and could not say why."""

    code = "worker_ended"


class MeasurementFailed(ArcFaceError):
    """The service to be measured cannot be started or reached, or fails under load."""

    code = "measurement_failed"


class EvaluationError(ArcFaceError):
    """Pairs cannot be evaluated, or not all of them. Only the command line sees these, so they have no code."""


class PairsInvalid(EvaluationError):
    """The file of pairs cannot be read, or lacks pairs of one kind."""


class AnnotationsInvalid(EvaluationError):
    """A face box or landmarks are missing, cannot be read, or lie outside the picture."""


class PicturesMissing(EvaluationError):
    """Pictures that the pairs name are missing or cannot be read."""


class EvaluationFailed(EvaluationError):
    """The service cannot be used, too few pictures can be embedded, or the report cannot be written."""


class EvaluationIncomplete(EvaluationError):
    """Some pictures could not be embedded: the figures are those of the other pairs."""


class SettingInvalid(ArcFaceError):
    """A command line option or an `ARCFACE_…` variable has a value that is not allowed."""

    code = "setting_invalid"


# ── packs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class PackError(ArcFaceError):
    """A model pack is missing, damaged, or not what it should be."""

    code = "pack_error"


class PackNotFound(PackError):
    """No such pack in any of the places looked in."""

    code = "pack_not_found"


class PackUnknown(PackError):
    """No registered pack has that name."""

    code = "pack_unknown"


class PackNameInvalid(PackError):
    """A name for an imported pack is malformed, reserved or taken."""

    code = "pack_name_invalid"


class PackWithoutRecogniser(PackError):
    """None of the pack's files turns a face into an embedding."""

    code = "pack_without_recogniser"


class PackAmbiguous(PackError):
    """Two of the pack's files could fill the same role."""

    code = "pack_ambiguous"


class PackManifestInvalid(PackError):
    """A `pack.toml` or `pack.lock.toml` cannot be understood, or states what it must not."""

    code = "pack_manifest_invalid"


class LicenceNotAccepted(PackError):
    """The licence of the weights has to be accepted before they are downloaded."""

    code = "licence_not_accepted"


class SourcesExhausted(PackError):
    """Every source of the pack was tried and none gave it."""

    code = "pack_sources_exhausted"


class DownloadFailed(PackError):
    """One source did not give what it should."""

    code = "pack_download_failed"


class ModelIsLfsPointer(PackError):
    """The file is a Git LFS pointer, not the model it points to."""

    code = "model_is_lfs_pointer"


class ModelIsHtml(PackError):
    """The file is a web page, not a model or an archive."""

    code = "model_is_html"


class ModelTruncated(PackError):
    """The file is shorter than it must be."""

    code = "model_truncated"


class ModelHashWrong(PackError):
    """The file's bytes are not the ones its manifest states."""

    code = "model_hash_wrong"


class ModelHashChanged(PackError):
    """The file's bytes are not the ones recorded at its first use."""

    code = "model_hash_changed"


class ModelUnreadable(PackError):
    """The file cannot be read."""

    code = "model_unreadable"


class GraphUnfit(PackError):
    """The ONNX model has an input or an output that cannot be used here."""

    code = "model_graph_unfit"


class ArchiveDamaged(PackError):
    """The file is not a zip archive, or a broken one."""

    code = "archive_damaged"


class ArchiveTooLarge(PackError):
    """A member of the archive unpacks to more than it may."""

    code = "archive_too_large"


class ArchiveEscapes(PackError):
    """A member of the archive is named so that it would land outside the pack's folder."""

    code = "archive_escapes"


class StorageFull(PackError):
    """The disk has no room for the pack."""

    code = "pack_storage_full"


class StorageUnwritable(PackError):
    """The folder for packs cannot be written: it is read-only, belongs to someone else, or the disk fails."""

    code = "pack_storage_unwritable"
