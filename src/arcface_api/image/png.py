"""What of a PNG file is given to the decoder: nothing that announces more than is there, and none of its texts.

    signature │ IHDR │ … │ zTXt │ IDAT │ IEND │ …          becomes          signature │ IHDR │ … │ IDAT │ IEND

The decoder reserves what a chunk announces, up to 4 GB, before it looks whether that comes, and unpacks and keeps every
text: a megabyte of them becomes a gigabyte.
"""

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 65_536
"""More are refused: encoders write pieces of some kilobytes, and a file of nothing but empty chunks must not keep a
thread busy."""

_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_FRAME_BYTES = 12
"""Length, type and checksum around a chunk's data. Source: PNG specification, section 5.3."""


def without_texts(content: bytes) -> bytes | None:
    """The file without its texts, up to its end; itself where that is all of it.

    Args:
        content: Begins with `SIGNATURE`.

    Returns:
        None where the file is cut short, a chunk announces more than is there, or there are more than `MAX_CHUNKS`.
    """
    kept: list[bytes] = [SIGNATURE]
    begin = position = len(SIGNATURE)
    has_texts = False
    for _ in range(MAX_CHUNKS):
        if position + _FRAME_BYTES > len(content):
            return None
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + length + _FRAME_BYTES
        if end > len(content):
            return None
        if kind in _TEXTS:
            kept.append(content[begin:position])
            begin, has_texts = end, True
        position = end
        if kind == b"IEND":
            return b"".join([*kept, content[begin:end]]) if has_texts else content
    return None
