"""The image out of a request: a multipart form's part `file`, or the body itself. Counted while it arrives."""

from collections.abc import AsyncIterator

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from arcface_api.errors import BodyTooLarge, ContentTypeUnsupported, FileMissing, FileRepeated, MultipartMalformed

FORM_TYPE = "multipart/form-data"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp")
PART_NAME = "file"

FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may carry beside the image: boundaries, headers, small fields that nobody asked for."""


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Read the uploaded image, at most `max_bytes` of it.

    Raises:
        ContentTypeUnsupported: The request is neither a form nor a JPEG, PNG or WebP body.
        BodyTooLarge: More bytes were announced or came.
        MultipartMalformed, FileMissing, FileRepeated: The form cannot be used.
        starlette.requests.ClientDisconnect: The caller left.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == FORM_TYPE:
        allowed = max_bytes + FORM_OVERHEAD_BYTES
        _check_announced(request, allowed, max_bytes)
        return await _read_form(request, options.get("boundary", ""), max_bytes)
    if content_type in RAW_TYPES:
        _check_announced(request, max_bytes, max_bytes)
        content = bytearray()
        async for chunk in _counted(request, max_bytes, max_bytes):
            content += chunk
        return bytes(content)
    raise ContentTypeUnsupported(
        f"The request's Content-Type is {content_type or 'missing'}. Send {FORM_TYPE} with the part {PART_NAME} (curl"
        f" -F {PART_NAME}=@face.jpg), or the image as the body with Content-Type {' or '.join(RAW_TYPES)}."
    )


async def _read_form(request: Request, boundary: str, max_bytes: int) -> bytes:
    if not boundary:
        raise MultipartMalformed(
            "The Content-Type multipart/form-data names no boundary. Let the HTTP client set this header itself."
        )
    content: bytearray | None = None
    segment: MultipartSegment | None = None
    try:
        with PushMultipartParser(boundary) as parser:
            async for chunk in _counted(request, max_bytes + FORM_OVERHEAD_BYTES, max_bytes):
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        segment = event
                        if segment.name == PART_NAME:
                            if content is not None:
                                raise FileRepeated(
                                    f"The form has more than one part named {PART_NAME}; send one image a request."
                                )
                            content = bytearray()
                    elif event and segment and segment.name == PART_NAME and content is not None:
                        content += event
                        if len(content) > max_bytes:
                            raise _too_large(max_bytes)
    except MultipartError as error:
        raise MultipartMalformed(
            f"The multipart form cannot be read: {error}. Let the HTTP client build it (curl -F {PART_NAME}=@face.jpg)."
        ) from error
    if content is None:
        raise FileMissing(
            f"The form has no part named {PART_NAME}. Send the image in it (curl -F {PART_NAME}=@face.jpg)."
        )
    return bytes(content)


def _check_announced(request: Request, allowed: int, max_bytes: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > allowed:
        raise _too_large(max_bytes)


async def _counted(request: Request, allowed: int, max_bytes: int) -> AsyncIterator[bytes]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > allowed:
            raise _too_large(max_bytes)
        if chunk:
            yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The image is larger than {max_bytes:,} bytes. Send the face crop, not the whole photo, or ask the operator"
        " to raise ARCFACE_MAX_IMAGE_BYTES."
    )
