"""The one thing that EXIF data is read for: how the picture has to be turned.

Nothing is followed and nothing is allocated: of the first directory, at most `MAX_ENTRIES` entries of twelve bytes are
looked at. Sources: TIFF 6.0, section 2 (header, directory, types); CIPA DC-008 (EXIF), tag 0x0112.
"""

import struct

PREFIX = b"Exif\0\0"
"""Precedes the data in a JPEG. Some writers (libvips, and so sharp) put it into WebP and PNG files, too."""
UPRIGHT = 1
MAX_ENTRIES = 64
"""A camera's first directory has about a dozen, in the order of their tags, and this one is among the first."""

_ORIENTATION_TAG = 0x0112
_VALUE_FORMATS = {3: "H", 4: "I"}
"""TIFF's types SHORT and LONG."""
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation(exif: bytes) -> int:
    """What the EXIF data says: 1 (upright) to 8; 1 where it says nothing that can be understood.

    Args:
        exif: With or without `PREFIX`.
    """
    tiff = exif.removeprefix(PREFIX)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return UPRIGHT
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return UPRIGHT
    (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for number in range(min(entries, MAX_ENTRIES)):
        entry = directory + 2 + 12 * number
        if entry + 12 > len(tiff):
            break
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION_TAG and kind in _VALUE_FORMATS:
            (value,) = struct.unpack_from(f"{order}{_VALUE_FORMATS[kind]}", tiff, entry + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
