"""The images out of a request: parts of a multipart form, or the body itself. Counted while they arrive."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from arcface_api.errors import (
    BodyTooLarge,
    ContentTypeUnsupported,
    FileMissing,
    FileRepeated,
    MultipartMalformed,
    TooManyFiles,
    UploadStalled,
)

FORM_TYPE = "multipart/form-data"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp")
ALSO_RAW_TYPES = ("image/jpg",)
"""Not registered, but common; the content decides anyway."""
PART_NAME = "file"
BATCH_PART_NAME = "files"

FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may carry beside its images: boundaries, headers, small fields that nobody asked for."""
STALL_SECONDS = 30.0
"""Longest silence in the middle of an upload: a caller that went to sleep must not hold a connection for ever."""


@dataclass(frozen=True)
class UploadLimits:
    """How much a request may bring."""

    image_bytes: int
    batch_files: int
    batch_bytes: int
    """All images of one batch request together."""


async def read_image(request: Request, limits: UploadLimits) -> bytes:
    """Read the one image of a request: the form's part `file`, or the body.

    Raises:
        ContentTypeUnsupported: The request is neither a form nor a JPEG, PNG or WebP body.
        BodyTooLarge: More bytes were announced or came than one image may have.
        MultipartMalformed, FileMissing, FileRepeated: The form cannot be used.
        starlette.requests.ClientDisconnect: The caller left.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    too_large = _image_too_large(limits.image_bytes)
    if content_type == FORM_TYPE:
        body = _counted(request, limits.image_bytes + FORM_OVERHEAD_BYTES, too_large)
        images = await _read_parts(body, options.get("boundary", ""), PART_NAME, 1, limits.image_bytes)
        if isinstance(images[0], BodyTooLarge):
            raise images[0]
        return images[0]
    if content_type in RAW_TYPES + ALSO_RAW_TYPES:
        content = bytearray()
        async for chunk in _counted(request, limits.image_bytes, too_large):
            content += chunk
        return bytes(content)
    raise ContentTypeUnsupported(
        f"The request's Content-Type is {content_type or 'missing'}. Send {FORM_TYPE} with the part {PART_NAME} (curl"
        f" -F {PART_NAME}=@face.jpg), or the image as the body with Content-Type {' or '.join(RAW_TYPES)}."
    )


async def read_images(request: Request, limits: UploadLimits) -> list[bytes | BodyTooLarge]:
    """Read the images of a batch request: the form's parts `files`, in order; one that is too large costs only itself.

    Raises:
        ContentTypeUnsupported: The request is no form.
        BodyTooLarge: More bytes were announced or came than all its images may have.
        TooManyFiles: More images came than one batch request may have.
        MultipartMalformed, FileMissing: The form cannot be used.
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
    overhead = FORM_OVERHEAD_BYTES + 1024 * limits.batch_files
    body = _counted(request, limits.batch_bytes + overhead, too_large)
    return await _read_parts(body, options.get("boundary", ""), BATCH_PART_NAME, limits.batch_files, limits.image_bytes)


async def _read_parts(
    body: AsyncIterator[bytes], boundary: str, name: str, max_parts: int, max_part_bytes: int
) -> list[bytes | BodyTooLarge]:
    """The form's parts of one name, in order, at least one; what is too large is counted and thrown away."""
    if not boundary:
        raise MultipartMalformed(
            "The Content-Type multipart/form-data names no boundary. Let the HTTP client set this header itself."
        )
    parts: list[bytearray | BodyTooLarge] = []
    is_wanted = False
    try:
        with PushMultipartParser(boundary, header_charset="latin-1") as parser:
            async for chunk in body:
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        is_wanted = event.name == name
                        if is_wanted:
                            if len(parts) == max_parts:
                                raise _too_many(name, max_parts)
                            parts.append(bytearray())
                    elif event and is_wanted and isinstance(part := parts[-1], bytearray):
                        part += event
                        if len(part) > max_part_bytes:
                            parts[-1] = _image_too_large(max_part_bytes)
    except MultipartError as error:
        # not the parser's own words: they can quote the form, file name and pixels included
        raise MultipartMalformed(
            "The multipart form is cut short or not built as RFC 7578 wants it. Let the HTTP client build it (curl -F"
            f" {name}=@face.jpg)."
        ) from error
    if not parts:
        raise FileMissing(f"The form has no part named {name}. Send the image in it (curl -F {name}=@face.jpg).")
    return [bytes(part) if isinstance(part, bytearray) else part for part in parts]


def _too_many(name: str, max_parts: int) -> FileRepeated | TooManyFiles:
    if max_parts == 1:
        return FileRepeated(
            f"The form has more than one part named {name}; this request embeds one image. Send many to /embed/batch."
        )
    return TooManyFiles(f"The form has more than {max_parts} parts named {name}. Send them in several requests.")


async def _counted(request: Request, max_bytes: int, too_large: BodyTooLarge) -> AsyncIterator[bytes]:
    """The body's chunks; refused at the first byte too many, or before where its length is announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    received = 0
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadStalled(
                f"Nothing came for {STALL_SECONDS:g} seconds in the middle of the upload. Send the request again."
            ) from None
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        if chunk:
            yield chunk


def _image_too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The image is larger than {max_bytes:,} bytes. Send the face crop, not the whole photo, or ask the operator to"
        " raise ARCFACE_MAX_IMAGE_BYTES."
    )
