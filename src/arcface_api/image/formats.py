"""Which format a file has, by its content; what is no picture is named, so that its sender knows what to do."""

from arcface_api.errors import ImageDamaged, ImageEmpty, ImageFormatUnsupported
from arcface_api.image import jpeg, png, webp
from arcface_api.image.container import Container

ALLOWED = "Allowed are JPEG, PNG and WebP, recognised by their content: convert it, or send the picture's own bytes."


def take_apart(content: bytes) -> Container:
    """Take a picture's file apart: what its pixels need, their number, and how they have to be turned.

    No pixel is decoded. Steps are bounded, and nothing is allocated but the bytes that are kept.

    Raises:
        ImageEmpty: There are no bytes.
        ImageFormatUnsupported: The content is something else; the message names what.
        ImageDamaged: The file is cut off, contradicts itself, or announces no pixels.
    """
    if not content:
        raise ImageEmpty("The image is empty (0 bytes). Send the bytes of a JPEG, PNG or WebP file.")
    if content.startswith(jpeg.SIGNATURE):
        container = jpeg.take_apart(content)
    elif content.startswith(png.SIGNATURE):
        container = png.take_apart(content)
    elif webp.is_webp(content):
        container = webp.take_apart(content)
    else:
        raise ImageFormatUnsupported(f"The file is {_name_content(content)}. {ALLOWED}")
    if container.width == 0 or container.height == 0:
        raise ImageDamaged(
            f"The {container.format} header announces {container.width}x{container.height} pixels. Send at least 1x1."
        )
    return container


_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"\x00\x00\x01\x00", "a Windows icon"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftyp", "an MP4 or QuickTime file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it stands for"),
)

# Compared in lower case, after white space and a byte-order mark.
_TEXT_OPENINGS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG document"),
    (b"<?xml", "an XML document"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
    (b"data:image/", "a data: URL"),
    (b"/9j/", "Base64 text of a JPEG, not its bytes"),
    (b"ivborw0kggo", "Base64 text of a PNG, not its bytes"),
    (b"uklgr", "Base64 text of a WebP, not its bytes"),
)


def _name_content(content: bytes) -> str:
    """What the bytes most likely are, for the error message."""
    for offset, signature, name in _SIGNATURES:
        if content.startswith(signature, offset):
            return name
    text = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for opening, name in _TEXT_OPENINGS:
        if text.startswith(opening):
            return name
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "plain text (with curl, -F file=@face.jpg sends a file, -F file=face.jpg its name)"
    return f"of no known format (it begins with {content[:4].hex(' ')})"
