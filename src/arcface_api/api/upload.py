"""Reads what a request uploads: its body as it arrives, and from it pictures and their landmarks.

All uploads of a process are counted together. Each is limited in size and time, and is refused as soon as it exceeds a
limit.

Longer than most modules: its two layers (body, form) read the same bytes in one pass. `json_bodies` reads JSON.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, header_unquote
from starlette.requests import ClientDisconnect

from arcface_api import errors
from arcface_api.api import json_bodies
from arcface_api.api.answers import LimitsInfo
from arcface_api.api.connections import Trimmer
from arcface_api.api.json_bodies import EXAMPLES, IMAGE_KEY, IMAGES_KEY, JSON_TYPE, LANDMARKS
from arcface_api.api.options import OPTION_NAMES, header
from arcface_api.embedder import Picture
from arcface_api.wire import Align
from arcface_api.wording import counted

SLOW_START_SECONDS = 5.0
"""The minimum speed of an upload applies after this time."""
SMALL_BYTES, LARGE_SHARE = 64 * 1024, 3 / 4
"""Uploads of more bytes may fill only this share of the room, so that a few large, slow ones leave room for crops."""

FORM_TYPE = "multipart/form-data"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp")
ALSO_RAW_TYPES = ("image/jpg", "application/octet-stream", "binary/octet-stream", "")
"""Common, too; the last one is no type at all. The content decides in any case."""
COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"})
"""Content codings that are refused. Other values are mistakes that change no byte, such as `utf-8`."""
PART_NAME = "file"
BATCH_PART_NAME = "files"
_PATHS = {PART_NAME: "/embed", BATCH_PART_NAME: "/embed/batch"}

FORM_OVERHEAD_BYTES = 64 * 1024
"""Room for what a form has beside its images: boundaries, headers, small fields that are ignored."""
LANDMARKS_BYTES = 1024
"""Most bytes for the landmarks of one picture as JSON. Ten numbers with all their digits take 250."""
OTHERS_NAMED, OTHER_CHARACTERS = 5, 40
"""How many ignored parts an error names, and with how many characters of each name."""
TYPE_CHARACTERS = 100
"""As many of a Content-Type or Content-Encoding as an error names."""
BEGINNING_BYTES = 1024
"""Of a form that cannot be read: without a boundary in them, it has another one than its Content-Type."""
BOUNDARY_CHARACTERS = 70
"""As many of a boundary as an error names; RFC 2046 section 5.1.1 allows no longer one."""

# Older Java clients do not quote a boundary with `=` and other characters that must be quoted: it ends at the next `;`.
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)')


_IMAGE_TOO_LARGE = (
    "{} is larger than the {:,} bytes that an image may have. Send the face crop, not the whole photo, or ask the"
    " operator to raise ARCFACE_MAX_IMAGE_BYTES."
)


class Uploads:
    """All uploads of one process that are inside: arriving, or not answered yet."""

    def __init__(self, limits: LimitsInfo) -> None:
        """The largest request that `limits` allow always fits."""
        capacity = limits.max_upload_bytes_inside
        image_bytes = max(limits.max_image_bytes, limits.max_batch_bytes)
        largest = _batch_body_bytes(limits, json_bodies.text_bytes(image_bytes))
        self.capacity = max(capacity, largest)
        self.large_capacity = max(int(LARGE_SHARE * capacity), largest)
        self.limits = limits
        self.inside_bytes = 0
        self._trimmer = Trimmer()

    @contextmanager
    def body(self, request: Request, deadline: float) -> "Iterator[Body]":
        """The body of a request, to be answered by `deadline`. Its bytes are inside until the block ends."""
        body = Body(self, request, deadline)
        try:
            yield body
        finally:
            self.inside_bytes -= body.received
            if body.received > SMALL_BYTES:
                self._trimmer.note()


@dataclass
class Body:
    """The body of one request; made by `Uploads.body`."""

    uploads: Uploads
    request: Request
    deadline: float
    received: int = 0
    _started: float = field(default_factory=time.monotonic)
    _has_more: bool = True
    _max_bytes: int = 0
    _too_large: str = ""

    def limit(self, max_bytes: int, too_large: str) -> None:
        """Allow `max_bytes`, before any is read. Raises `BodyTooLarge(too_large)` if more are announced."""
        self._max_bytes, self._too_large = max_bytes, too_large
        announced = header(self.request, b"content-length") or ""
        if announced.isdecimal() and int(announced) > max_bytes:
            raise errors.BodyTooLarge(too_large)

    async def read(self) -> bytes:
        """Returns the next bytes; none at the end of the body.

        Raises:
            BodyTooLarge, UploadsFull: This upload, or all together, have more bytes than they may.
            UploadStalled, DeadlineExceeded: It arrives too slowly, or not in time to be answered.
            starlette.requests.ClientDisconnect: The caller left.
        """
        chunk, uploads = b"", self.uploads
        most_seconds, min_speed = uploads.limits.upload_timeout_seconds, uploads.limits.upload_min_bytes_per_second
        silence_seconds = uploads.limits.upload_silence_seconds
        while self._has_more and not chunk:
            now = time.monotonic()
            whole = self._started + most_seconds
            slow = self._started + SLOW_START_SECONDS + self.received / min_speed
            end = min(self.deadline, whole, slow, now + silence_seconds)
            try:
                async with asyncio.timeout(end - now):
                    message = await self.request.receive()
            except TimeoutError:
                if end == self.deadline:
                    raise errors.DeadlineExceeded from None
                broken = f"Nothing arrived for {silence_seconds:g} seconds in the middle of the upload"
                if end == whole:
                    broken = f"The upload took longer than the {most_seconds:g} s allowed"
                elif end == slow:
                    broken = f"The upload is slower than {min_speed:,} bytes a second"
                raise errors.UploadStalled(f"{broken}. Send the request again over a faster connection.") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._has_more = message.get("more_body", False)
            chunk = message.get("body", b"")
        if not chunk:
            return chunk
        size = self.received + len(chunk)
        if size > self._max_bytes:
            raise errors.BodyTooLarge(self._too_large)
        room = uploads.capacity if size <= SMALL_BYTES else uploads.large_capacity
        if uploads.inside_bytes + len(chunk) > room:
            raise errors.UploadsFull(room)
        uploads.inside_bytes += len(chunk)
        self.received = size
        return chunk


async def read_image(request: Request, body: Body, align: Align) -> Picture:
    """Read the picture of `/embed`: the form's part `file`, the JSON's key `image`, or the whole body.

    Raises:
        ContentTypeUnsupported: The request is neither a form, JSON nor a picture, or it is compressed.
        MultipartMalformed, JsonMalformed, Base64Invalid, FileMissing, FileRepeated, ParameterInvalid: The form or the
            JSON cannot be used.
        LandmarksInvalid, ParametersConflict: The landmarks cannot be read, or `align` does not use them.
        Exception: Those of `Body`.
    """
    max_bytes = body.uploads.limits.max_image_bytes
    too_large = _IMAGE_TOO_LARGE.format("The request", max_bytes)
    content_type, boundary = _content_type(request)
    image, landmarks = BytesIO(), None
    if content_type == FORM_TYPE:
        body.limit(max_bytes + FORM_OVERHEAD_BYTES, too_large)
        form = _Form(PART_NAME, 1, max_bytes)
        await form.read(body, boundary)
        uploaded, landmarks = form.images[0], form.landmarks
        if isinstance(uploaded, errors.BodyTooLarge):
            raise uploaded
        image = uploaded
    elif content_type == JSON_TYPE:
        body.limit(json_bodies.text_bytes(max_bytes) + FORM_OVERHEAD_BYTES, too_large)
        content, points = json_bodies.read_one(await _whole(body))
        if len(content) > max_bytes:
            raise errors.BodyTooLarge(_IMAGE_TOO_LARGE.format("The image", max_bytes))
        return Picture(content, json_bodies.landmarks(points, align))
    elif content_type in RAW_TYPES + ALSO_RAW_TYPES:
        body.limit(max_bytes, too_large)
        while chunk := await body.read():
            image.write(chunk)
    if content_type not in (FORM_TYPE, *RAW_TYPES, *ALSO_RAW_TYPES) or not (content_type or image.tell()):
        raise errors.ContentTypeUnsupported(
            f"The request's Content-Type is {content_type[:TYPE_CHARACTERS] or 'missing'}. Send {FORM_TYPE} with the"
            f" part {PART_NAME} (curl -F {PART_NAME}=@face.jpg), the image as the body with Content-Type"
            f" {' or '.join(RAW_TYPES)}, or {EXAMPLES[IMAGE_KEY]} with {JSON_TYPE}."
        )
    points = None
    if landmarks is not None or align is Align.LANDMARKS:
        points = json_bodies.landmarks(landmarks and landmarks.getvalue(), align)
    return Picture(image.getvalue(), points)


async def read_images(request: Request, body: Body, align: Align) -> list[Picture | errors.RequestError]:
    """Read the pictures of `/embed/batch`, in order: the form's parts `files`, or the JSON's list `images`.

    In the place of one that is too large or no base64 stands its error.

    Raises:
        ContentTypeUnsupported: The request is neither a form nor JSON, or it is compressed.
        TooManyFiles: It has more images than one batch request may have.
        Exception: Those of `read_image`.
    """
    limits = body.uploads.limits
    content_type, boundary = _content_type(request)
    is_json = content_type == JSON_TYPE
    if content_type != FORM_TYPE and not is_json:
        raise errors.ContentTypeUnsupported(
            f"The request's Content-Type is {content_type[:TYPE_CHARACTERS] or 'missing'}. Send {FORM_TYPE} with a"
            f" part {BATCH_PART_NAME} for each image (curl -F {BATCH_PART_NAME}=@a.jpg -F {BATCH_PART_NAME}=@b.jpg), or"
            f" {EXAMPLES[IMAGES_KEY]} with {JSON_TYPE}."
        )
    image_bytes = limits.max_batch_bytes
    too_large = (
        f"The images of this request have more than {image_bytes:,} bytes together. Send fewer at once, or ask the"
        " operator to raise ARCFACE_MAX_BATCH_BYTES."
    )
    body.limit(_batch_body_bytes(limits, json_bodies.text_bytes(image_bytes) if is_json else image_bytes), too_large)
    images: list[bytes | errors.RequestError] = []
    if is_json:
        contents, points = json_bodies.read_many(await _whole(body), limits.max_batch_files)
        for content in contents:
            images.append(content)
            image_bytes -= len(content) if isinstance(content, bytes) else 0
            if image_bytes < 0:
                raise errors.BodyTooLarge(too_large)
            if isinstance(content, bytes) and len(content) > limits.max_image_bytes:
                images[-1] = errors.BodyTooLarge(_IMAGE_TOO_LARGE.format("The image", limits.max_image_bytes))
            await asyncio.sleep(0)  # the event loop serves others between large pictures
    else:
        form = _Form(BATCH_PART_NAME, limits.max_batch_files, limits.max_image_bytes)
        await form.read(body, boundary)
        images += [image if isinstance(image, errors.RequestError) else image.getvalue() for image in form.images]
        points = form.landmarks and form.landmarks.getvalue()
    landmarks = json_bodies.landmarks(points, align, len(images)) or [None] * len(images)
    return [
        image if isinstance(image, errors.RequestError) else Picture(image, points)
        for image, points in zip(images, landmarks, strict=True)
    ]


async def _whole(body: Body) -> BytesIO:
    """All of a body that is not taken apart as it arrives."""
    content = BytesIO()
    while chunk := await body.read():
        content.write(chunk)
    return content


def _content_type(request: Request) -> tuple[str, str]:
    """The request's Content-Type, in lower case, and its boundary; each may be empty.

    Raises `ContentTypeUnsupported` if the body is compressed.
    """
    coding = (header(request, b"content-encoding") or "").strip().lower()
    if COMPRESSIONS.intersection(re.split(r"[,\s]+", coding)):
        raise errors.ContentTypeUnsupported(
            f"The request's Content-Encoding is {coding[:TYPE_CHARACTERS]}, but request bodies must not be compressed;"
            " pictures already are. Send the body as it is, without Content-Encoding."
        )
    content_type, _, rest = (header(request, b"content-type") or "").partition(";")
    boundary = ""
    for name, value in _PARAMETER.findall(f";{rest}"):
        if name.lower() == "boundary":
            boundary = header_unquote(value.strip())
    return content_type.strip().lower(), boundary


def _batch_body_bytes(limits: LimitsInfo, image_bytes: int) -> int:
    """Most bytes in the body of a batch request whose pictures may take so many in it."""
    return image_bytes + FORM_OVERHEAD_BYTES + 1024 * limits.max_batch_files


@dataclass
class _Form:
    """Collects the parts of a form that are used, as they arrive."""

    name: str
    """Name of the parts with images."""
    max_parts: int
    image_bytes: int
    images: list[BytesIO | errors.BodyTooLarge] = field(default_factory=list)  # `getvalue` does not copy
    landmarks: BytesIO | None = None
    others: list[str] = field(default_factory=list)  # names of the first parts that are ignored
    part: BytesIO | None = None  # the one that is arriving; None if it is ignored
    room: int = 0  # of that part, in bytes

    async def read(self, body: Body, boundary: str) -> None:
        if not boundary:
            raise errors.MultipartMalformed(
                "The Content-Type multipart/form-data names no boundary. Let the HTTP client set this header itself."
            )
        beginning = b""
        try:
            with PushMultipartParser(boundary.encode("latin-1"), header_charset="latin-1") as parser:
                while chunk := await body.read():
                    if len(beginning) < BEGINNING_BYTES:
                        beginning += chunk[:BEGINNING_BYTES]
                    for event in parser.parse(chunk):
                        if isinstance(event, MultipartSegment):
                            self._begin(event.name)
                        elif event and self.part is not None:
                            self.part.write(event)
                            if self.part.tell() > self.room:
                                self._refuse_part()
        except MultipartError as error:
            # not the parser's own words: they can quote the form, file name and pixels included
            if b"--" + boundary.encode("latin-1") not in beginning:
                raise errors.MultipartMalformed(
                    "The body has no part that begins with the boundary of its Content-Type,"
                    f" --{boundary[:BOUNDARY_CHARACTERS]}: it is cut short, or no form, or has another boundary. Let"
                    f" the HTTP client set both (curl -F {self.name}=@face.jpg)."
                ) from error
            raise errors.MultipartMalformed(
                "The multipart form is cut short or not built as RFC 7578 requires. Let the HTTP client build it (curl"
                f" -F {self.name}=@face.jpg)."
            ) from error
        if not self.images:
            raise self._missing()

    def _begin(self, name: str) -> None:
        """A part of this name begins."""
        self.part = None
        if name == self.name:
            if len(self.images) == self.max_parts:
                raise self._too_many()
            self.part, self.room = BytesIO(), self.image_bytes
            self.images.append(self.part)
        elif name == LANDMARKS:
            if self.landmarks is not None:
                raise errors.LandmarksInvalid(
                    f"The form has more than one part named {LANDMARKS}. Send one, with the landmarks of"
                    " every file in it."
                )
            self.landmarks = self.part = BytesIO()
            self.room = LANDMARKS_BYTES * self.max_parts
        elif name in OPTION_NAMES:  # ignored, it would give another vector than the caller expects
            raise errors.ParameterInvalid(
                f"{name} came as a part of the form, where it has no effect. It belongs in the query:"
                f" {_PATHS[self.name]}?{name}=…"
            )
        elif len(self.others) < OTHERS_NAMED:
            self.others.append(name)

    def _refuse_part(self) -> None:
        """The part that is arriving is too large: an image is dropped, landmarks are an error."""
        if self.part is self.landmarks:
            raise errors.LandmarksInvalid(
                f"The form's part {LANDMARKS} has more than {self.room:,} bytes; five pairs of numbers for"
                " each file take less. Send only those."
            )
        self.images[-1], self.part = errors.BodyTooLarge(_IMAGE_TOO_LARGE.format("The image", self.image_bytes)), None

    def _too_many(self) -> errors.FileRepeated | errors.TooManyFiles:
        if self.name == PART_NAME:
            return errors.FileRepeated(
                f"The form has more than one part named {PART_NAME}; this request embeds one image. Send many to"
                " /embed/batch."
            )
        return errors.TooManyFiles(
            f"The form has more than {counted(self.max_parts, 'part')} named {self.name}, the most allowed."
            " Send them in several requests."
        )

    def _missing(self) -> errors.FileMissing:
        found = f", only {', '.join(other[:OTHER_CHARACTERS] for other in self.others)}" if self.others else ""
        advice = f"{found}. Send the image in it (curl -F {self.name}=@face.jpg)."
        for other, path in _PATHS.items():
            if other in self.others:
                advice = f". A form with {other} belongs to {path}."
        return errors.FileMissing(f"The form has no part named {self.name}{advice}")
