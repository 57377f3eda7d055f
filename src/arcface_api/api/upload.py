"""The pictures out of a request: parts of a multipart form, or the body itself."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from arcface_api.api.options import OPTION_NAMES
from arcface_api.api.receiving import Admission, Body
from arcface_api.errors import (
    BodyTooLarge,
    ContentTypeUnsupported,
    FileMissing,
    FileRepeated,
    LandmarksInvalid,
    MultipartMalformed,
    ParameterInvalid,
    TooManyFiles,
)

FORM_TYPE = "multipart/form-data"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp")
ALSO_RAW_TYPES = ("image/jpg",)
"""Not registered, but common; the content decides anyway."""
PART_NAME = "file"
BATCH_PART_NAME = "files"
LANDMARKS_PART_NAME = "landmarks"
_PATHS = {PART_NAME: "/embed", BATCH_PART_NAME: "/embed/batch"}

FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may carry beside its images: boundaries, headers, small fields that nobody asked for."""
LANDMARKS_BYTES = 1024
"""What the landmarks of one picture may take as JSON: ten numbers with all their digits are 250."""
OTHERS_TOLD, OTHER_CHARACTERS = 5, 40
"""Of parts that nobody asked for: how many names an error tells, and how much of each."""


@dataclass(frozen=True)
class UploadLimits:
    """How much a request may bring."""

    image_bytes: int
    batch_files: int
    batch_bytes: int
    """All images of one batch request together."""

    @property
    def body_bytes(self) -> int:
        """Most bytes of one image's request."""
        return self.image_bytes + FORM_OVERHEAD_BYTES

    @property
    def batch_body_bytes(self) -> int:
        """Most bytes of one batch request."""
        return self.batch_bytes + FORM_OVERHEAD_BYTES + 1024 * self.batch_files


@dataclass(frozen=True)
class Upload:
    """What a request brought."""

    images: list[bytes | BodyTooLarge]
    """In order, at least one; each the file, or that it is too large."""
    landmarks: bytes | None = None
    """The form's part `landmarks`, as it came; None where it is missing, or empty as of a form not filled in."""


async def read_image(request: Request, limits: UploadLimits, admission: Admission) -> Upload:
    """Read the one image of a request: the form's part `file`, or the body.

    Raises:
        ContentTypeUnsupported: The request is neither a form nor a JPEG, PNG or WebP body.
        BodyTooLarge: More bytes were announced or came than one image may have.
        MultipartMalformed, FileMissing, FileRepeated: The form cannot be used.
        ParameterInvalid: The form has a part that belongs into the query.
        UploadsFull, UploadStalled, DeadlineExceeded: As `Body`.
        starlette.requests.ClientDisconnect: The caller left.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    too_large = _too_large("The request", limits.image_bytes)
    if content_type == FORM_TYPE:
        body = Body(request, admission, limits.body_bytes, too_large)
        upload = await _read_form(body, options.get("boundary", ""), PART_NAME, 1, limits.image_bytes)
        if isinstance(upload.images[0], BodyTooLarge):
            raise upload.images[0]
        return upload
    if content_type in RAW_TYPES + ALSO_RAW_TYPES:
        content = BytesIO()
        async for chunk in Body(request, admission, limits.image_bytes, too_large):
            content.write(chunk)
        return Upload([content.getvalue()])
    raise ContentTypeUnsupported(
        f"The request's Content-Type is {content_type or 'missing'}. Send {FORM_TYPE} with the part {PART_NAME} (curl"
        f" -F {PART_NAME}=@face.jpg), or the image as the body with Content-Type {' or '.join(RAW_TYPES)}."
    )


async def read_images(request: Request, limits: UploadLimits, admission: Admission) -> Upload:
    """Read the images of a batch request: the form's parts `files`, in order; one that is too large costs only itself.

    Raises:
        ContentTypeUnsupported: The request is no form.
        BodyTooLarge: More bytes were announced or came than all its images may have.
        TooManyFiles: More images came than one batch request may have.
        MultipartMalformed, FileMissing: The form cannot be used.
        ParameterInvalid: The form has a part that belongs into the query.
        UploadsFull, UploadStalled, DeadlineExceeded: As `Body`.
        starlette.requests.ClientDisconnect: The caller left.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != FORM_TYPE:
        raise ContentTypeUnsupported(
            f"The request's Content-Type is {content_type or 'missing'}. Send {FORM_TYPE} with a part {BATCH_PART_NAME}"
            f" for each image (curl -F {BATCH_PART_NAME}=@a.jpg -F {BATCH_PART_NAME}=@b.jpg)."
        )
    too_large = BodyTooLarge(
        f"The images of this request have more than {limits.batch_bytes:,} bytes together. Send fewer at once, or ask"
        " the operator to raise ARCFACE_MAX_BATCH_BYTES."
    )
    body = Body(request, admission, limits.batch_body_bytes, too_large)
    return await _read_form(body, options.get("boundary", ""), BATCH_PART_NAME, limits.batch_files, limits.image_bytes)


async def _read_form(
    body: AsyncIterator[bytes], boundary: str, name: str, max_parts: int, max_part_bytes: int
) -> Upload:
    """The form's parts of one name, in order, and its landmarks; what is too large is counted and thrown away."""
    if not boundary:
        raise MultipartMalformed(
            "The Content-Type multipart/form-data names no boundary. Let the HTTP client set this header itself."
        )
    form = _Form(name, max_parts, max_part_bytes)
    try:
        with PushMultipartParser(boundary, header_charset="latin-1") as parser:
            async for chunk in body:
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        form.begin(event.name)
                    elif event:
                        form.go_on(event)
    except MultipartError as error:
        # not the parser's own words: they can quote the form, file name and pixels included
        raise MultipartMalformed(
            "The multipart form is cut short or not built as RFC 7578 wants it. Let the HTTP client build it (curl -F"
            f" {name}=@face.jpg)."
        ) from error
    if not form.images:
        raise _missing(name, form.others)
    images = [image if isinstance(image, BodyTooLarge) else image.getvalue() for image in form.images]
    return Upload(images, form.landmarks.getvalue() or None if form.landmarks else None)


class _Form:
    """Gathers the parts that are wanted, while they arrive."""

    def __init__(self, name: str, max_parts: int, max_part_bytes: int) -> None:
        self._name, self._max_parts, self._max_part_bytes = name, max_parts, max_part_bytes
        self.images: list[BytesIO | BodyTooLarge] = []  # whose bytes are had without a copy
        self.landmarks: BytesIO | None = None
        self.others: list[str] = []
        """Names of the first parts that nobody asked for."""
        self._part: BytesIO | None = None
        """What the bytes that come belong to; None: nobody asked for them."""

    def begin(self, name: str) -> None:
        """A part of this name begins."""
        self._part = None
        if name == self._name:
            if len(self.images) == self._max_parts:
                raise _too_many(name, self._max_parts)
            self.images.append(part := BytesIO())
            self._part = part
        elif name == LANDMARKS_PART_NAME:
            if self.landmarks is not None:
                raise LandmarksInvalid(
                    f"The form has more than one part named {LANDMARKS_PART_NAME}. Send one, with the landmarks of"
                    " every file in it."
                )
            self.landmarks = self._part = BytesIO()
        elif name in OPTION_NAMES:  # ignored, it would give another vector than the caller believes to get
            raise ParameterInvalid(
                f"{name} came as a part of the form, where it has no effect. It belongs into the query:"
                f" {_PATHS[self._name]}?{name}=…"
            )
        elif len(self.others) < OTHERS_TOLD:
            self.others.append(name)

    def go_on(self, content: bytes | bytearray) -> None:
        """More of the part that began last."""
        part = self._part
        if part is None:
            return
        part.write(content)
        if part is self.landmarks:
            if part.tell() > LANDMARKS_BYTES * self._max_parts:
                raise LandmarksInvalid(
                    f"The form's part {LANDMARKS_PART_NAME} has more than {LANDMARKS_BYTES * self._max_parts:,} bytes;"
                    " five pairs of numbers for each file take less. Send those alone."
                )
        elif part.tell() > self._max_part_bytes:
            self.images[-1], self._part = _too_large("The image", self._max_part_bytes), None


def _missing(name: str, others: Sequence[str]) -> FileMissing:
    for other, path in _PATHS.items():
        if other in others:
            return FileMissing(f"The form has no part named {name}. A form with {other} belongs to {path}.")
    found = f", only {', '.join(other[:OTHER_CHARACTERS] for other in others)}" if others else ""
    return FileMissing(f"The form has no part named {name}{found}. Send the image in it (curl -F {name}=@face.jpg).")


def _too_many(name: str, max_parts: int) -> FileRepeated | TooManyFiles:
    if name == PART_NAME:
        return FileRepeated(
            f"The form has more than one part named {name}; this request embeds one image. Send many to /embed/batch."
        )
    return TooManyFiles(
        f"The form has more parts named {name} than the {max_parts} allowed. Send them in several requests."
    )


def _too_large(what: str, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"{what} is larger than the {max_bytes:,} bytes that an image may have. Send the face crop, not the whole"
        " photo, or ask the operator to raise ARCFACE_MAX_IMAGE_BYTES."
    )
