"""The requests of `same_answers.py`: real crops in every form, and requests that must be refused."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

BOUNDARY = "same-answers-7d1f0c55e2"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ALIGNS = ("none", "auto", "landmarks")
FORMS = ("", "include_attributes=true", "include_quality=true", "flip=true")
BATCH = 8
"""Pictures of one batch request."""

Points = Sequence[Sequence[float]]
Part = tuple[str, str | None, bytes]
"""Name, file name and content of one part of a form."""


@dataclass(frozen=True)
class Face:
    """A crop as a file, and its five landmarks in the crop's pixels."""

    content: bytes
    landmarks: Points


@dataclass(frozen=True)
class Sent:
    """One request."""

    name: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def form(*parts: Part) -> bytes:
    """A multipart form."""
    body = b""
    for name, file_name, content in parts:
        about = f'; filename="{file_name}"' if file_name else ""
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{about}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def post(name: str, path: str, *parts: Part, **headers: str) -> Sent:
    """A request with a form; headers are named with underscores for dashes."""
    return Sent(name, "POST", path, form(*parts), {"Content-Type": FORM} | _headers(headers))


def raw(name: str, path: str, body: bytes, **headers: str) -> Sent:
    """A request whose body is the picture."""
    return Sent(name, "POST", path, body, {"Content-Type": "image/jpeg"} | _headers(headers))


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


def single_requests(faces: Sequence[Face]) -> Iterator[Sent]:
    """Each crop in each alignment and each form."""
    for number, face in enumerate(faces):
        for align, query in product(ALIGNS, FORMS):
            path = f"/embed?align={align}" + (f"&{query}" if query else "")
            parts: list[Part] = [("file", "face", face.content)]
            if align == "landmarks":
                parts.append(("landmarks", None, json.dumps(face.landmarks).encode()))
            yield post(f"crop {number}, {align}, {query or 'plain'}", path, *parts)


def other_forms(faces: Sequence[Face]) -> Iterator[Sent]:
    """Some crops in the other representations, with the other options, as plain bodies, and in batches."""
    for number, face in enumerate(faces[:10]):
        file: Part = ("file", "face", face.content)
        for accept in ("application/octet-stream", "application/x-npy"):
            yield post(f"crop {number} as {accept}", "/embed?normalize=true", file, Accept=accept)
        yield raw(f"crop {number} as the body", "/embed", face.content)
        for query in ("encoding=base64", "normalize=true", "fit=letterbox", "resize=exact", "align=auto&flip=true"):
            yield post(f"crop {number}, {query}", f"/embed?{query}", file)
        every = "align=auto&include_attributes=true&include_quality=true&flip=true&normalize=true&encoding=base64"
        yield post(f"crop {number}, everything at once", f"/embed?{every}", file)
    for start in range(0, len(faces) - BATCH + 1, BATCH):
        some = faces[start : start + BATCH]
        files: list[Part] = [("files", "face", face.content) for face in some]
        landmarks: Part = ("landmarks", None, json.dumps([face.landmarks for face in some]).encode())
        for align in ALIGNS:
            parts = [*files, landmarks] if align == "landmarks" else files
            for query in FORMS:
                path = f"/embed/batch?align={align}" + (f"&{query}" if query else "")
                yield post(f"batch at {start}, {align}, {query or 'plain'}", path, *parts)
        for accept in ("application/octet-stream", "application/x-npy"):
            yield post(f"batch at {start} as {accept}", "/embed/batch", *files, Accept=accept)


def bad_requests(face: Face) -> Iterator[Sent]:
    """Requests that a service with the default limits refuses."""
    jpeg = face.content
    file: Part = ("file", "face", jpeg)
    yield Sent("no content type", "POST", "/embed", jpeg)
    yield Sent("content type of a text", "POST", "/embed", jpeg, {"Content-Type": "text/plain"})
    yield Sent("form without a boundary", "POST", "/embed", jpeg, {"Content-Type": "multipart/form-data"})
    yield Sent("form cut short", "POST", "/embed", form(file)[:-40], {"Content-Type": FORM})
    yield Sent("compressed form", "POST", "/embed", form(file), {"Content-Type": FORM, "Content-Encoding": "gzip"})
    yield post("form without parts", "/embed")
    yield post("form with another part", "/embed", ("image", "face", jpeg))
    yield post("batch form at the single path", "/embed", ("files", "face", jpeg))
    yield post("single form at the batch path", "/embed/batch", file)
    yield post("file twice", "/embed", file, file)
    yield post("unknown parameter", "/embed?normalise=true", file)
    yield post("parameter twice", "/embed?normalize=true&normalize=false", file)
    yield post("parameter in the form", "/embed", file, ("normalize", None, b"true"))
    yield post("boolean that is none", "/embed?normalize=maybe", file)
    yield post("unknown alignment", "/embed?align=yes", file)
    yield post("unknown fit", "/embed?fit=crop", file)
    yield post("unknown encoding", "/embed?encoding=hex", file)
    yield post("unknown resize", "/embed?resize=fast", file)
    yield post("base64 without JSON", "/embed?encoding=base64", file, Accept="application/x-npy")
    yield post("attributes without JSON", "/embed?include_attributes=true", file, Accept="application/octet-stream")
    yield post("quality without JSON", "/embed?include_quality=true", file, Accept="application/octet-stream")
    yield post("HTML accepted only", "/embed", file, Accept="text/html")
    yield post("other fingerprint", "/embed", file, X_Require_Fingerprint="0")
    yield post("timeout that is no number", "/embed", file, X_Request_Timeout="soon")
    yield post("timeout of nothing", "/embed", file, X_Request_Timeout="0")
    yield post("timeout too short for anything", "/embed", file, X_Request_Timeout="0.000001")
    yield post("empty file", "/embed", ("file", "face", b""))
    yield raw("empty body", "/embed", b"")
    yield raw("GIF", "/embed", b"GIF89a" + bytes(50))
    yield raw("HEIC", "/embed", b"\0\0\0\x18ftypheic" + bytes(50))
    yield raw("text", "/embed", b"a face")
    yield raw("JPEG cut in half", "/embed", jpeg[: len(jpeg) // 2])
    yield raw("PNG of too many pixels", "/embed", _png_announcing(50_000, 50_000))
    yield raw("more bytes than an image may have", "/embed", jpeg + bytes(21_000_000))
    yield from _bad_landmarks(face)
    yield post("too many files", "/embed/batch", *[("files", "face", jpeg)] * 65)
    yield post("batch with one bad file", "/embed/batch", ("files", "face", jpeg), ("files", "face", jpeg[:200]))
    yield Sent("no such path", "GET", "/nothing")
    yield Sent("wrong method", "GET", "/embed")
    yield Sent("wrong method of a probe", "POST", "/health")


def _bad_landmarks(face: Face) -> Iterator[Sent]:
    file: Part = ("file", "face", face.content)
    points = json.dumps(face.landmarks).encode()
    yield post("landmarks missing", "/embed?align=landmarks", file)
    yield post("landmarks unasked", "/embed", file, ("landmarks", None, points))
    yield post("landmarks that are no JSON", "/embed?align=landmarks", file, ("landmarks", None, b"eyes"))
    yield post("four landmarks", "/embed?align=landmarks", file, ("landmarks", None, b"[[1,1],[2,1],[1,2],[2,2]]"))
    yield post("landmarks on a line", "/embed?align=landmarks", file, ("landmarks", None, _on_a_line()))
    yield post("landmarks outside", "/embed?align=landmarks", file, ("landmarks", None, _outside()))
    mirrored = json.dumps([face.landmarks[i] for i in (1, 0, 2, 4, 3)]).encode()
    yield post("mirrored landmarks", "/embed?align=landmarks", file, ("landmarks", None, mirrored))
    two: list[Part] = [("files", "a", face.content), ("files", "b", face.content)]
    one: Part = ("landmarks", None, json.dumps([face.landmarks]).encode())
    yield post("batch with too few landmarks", "/embed/batch?align=landmarks", *two, one)


def _on_a_line() -> bytes:
    return json.dumps([[10 + 5 * i, 10 + 5 * i] for i in range(5)]).encode()


def _outside() -> bytes:
    return json.dumps([[-500, 10], [600, 10], [50, 50], [10, 900], [80, 900]]).encode()


def _png_announcing(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")) + end
