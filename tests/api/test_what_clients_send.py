"""Promises to clients that do not send what they should: read where that is safe, else refused with the cause."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest

from pictures import picture_bytes
from raw_http import Caller, request
from serving import Service

JPEG, PNG, WEBP = (picture_bytes(kind) for kind in ("JPEG", "PNG", "WEBP"))
SIMILARITY_CS = Path(__file__).parents[2] / "examples" / "requests" / "Similarity.cs"
CASES = Path(__file__).parents[3] / "shared" / "cases"


def form(boundary: str, content: bytes = JPEG, part: str = "file") -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="a.jpg"\r\n\r\n'
    return head.encode("latin-1") + content + f"\r\n--{boundary}--\r\n".encode("latin-1")


def sentence(service: Service, status: int, code: str, content: bytes, **headers: str) -> str:
    """Why this body is refused."""
    answer = service.post("/embed", content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return str(answer.json()["detail"])


# ── boundaries ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=----=_Part_3_77", "----=_Part_3_77"),
        ('multipart/form-data; boundary="----=_Part_3_77"', "----=_Part_3_77"),
        ("multipart/form-data; boundary=a/b:c?d=(e),f", "a/b:c?d=(e),f"),
        ("multipart/form-data; boundary=a=b ; charset=utf-8", "a=b"),
        ("multipart/form-data;charset=utf-8;BOUNDARY=a=b", "a=b"),
        ('multipart/form-data; note="; boundary=x"; boundary=a=b', "a=b"),
        (r'Multipart/Form-Data; boundary="a\"b;c"', 'a"b;c'),
        ("multipart/form-data; boundary=\xfcber", "\xfcber"),
    ],
)
@pytest.mark.parametrize(("path", "part"), [("/embed", "file"), ("/embed/batch", "files")])
def test_boundary_is_read_quoted_or_not(
    service: Service, path: str, part: str, content_type: str, boundary: str
) -> None:
    """Older Java clients do not quote one with `=`."""
    headers = {b"Content-Type": content_type.encode("latin-1")}
    answer = service.post(path, content=form(boundary, part=part), headers=headers)
    assert answer.status_code == 200, answer.text


def test_other_boundary_than_announced_is_named(service: Service) -> None:
    """As where a client writes the Content-Type of a form that a library builds."""
    why = sentence(service, 400, "multipart_malformed", form("real"), Content_Type="multipart/form-data; boundary=mine")
    assert "begins with the boundary of its Content-Type, --mine:" in why


@pytest.mark.parametrize(
    "written",
    [
        b"filename=face.jpg; filename*=utf-8''face.jpg",
        rb"""filename="a face.jpg"; filename*=utf-8''a%20face.jpg""",
        rb"""filename="=?utf-8?B?0LvQuNGG0L4uanBn?="; filename*=utf-8''%D0%BB%D0%B8%D1%86%D0%BE.jpg""",
    ],
)
def test_form_of_dotnet_is_read(service: Service, written: bytes) -> None:
    """The bytes that examples/requests/Similarity.cs sends: HttpClient with a MultipartFormDataContent."""
    assert 'form.Add(new ByteArrayContent(await File.ReadAllBytesAsync(path)), "file"' in SIMILARITY_CS.read_text()
    boundary = b"4b26a3d1-2f6c-4f07-9d3e-1f0a5c0f8d11"
    head = b"Content-Disposition: form-data; name=file; " + written
    body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, JPEG, boundary)
    content_type = f'Content-Type: multipart/form-data; boundary="{boundary.decode()}"'
    with Caller(service) as caller:
        caller.send(request("POST /embed?normalize=true", content_type, body=body))
        answer = caller.answer()
    assert answer.status == 200, answer.body
    assert answer.body == service.post("/embed", files={"file": JPEG}, params={"normalize": True}).content


# ── compressed bodies ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=b", "image/jpeg", "application/json"])
def test_compressed_body_is_refused_as_such(service: Service, path: str, content_type: str, coding: str) -> None:
    compressed = zlib.compress(form("b")) if coding == "deflate" else gzip.compress(form("b"))
    headers = {"Content-Type": content_type, "Content-Encoding": coding}
    answer = service.post(path, content=compressed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "content_type_unsupported")
    assert f"Content-Encoding is {coding.lower()}, but request bodies must not be compressed" in answer.json()["detail"]


@pytest.mark.parametrize("coding", ["identity", "utf-8", "binary", ""])
def test_content_encoding_that_changes_no_byte_is_ignored(service: Service, coding: str) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": coding}
    assert service.post("/embed", content=JPEG, headers=headers).status_code == 200


# ── bodies without a form ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", [JPEG, PNG, WEBP], ids=["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("declared", [None, "", "application/octet-stream", "binary/octet-stream"])
def test_body_without_a_type_is_recognised_by_its_content(
    service: Service, declared: str | None, content: bytes
) -> None:
    headers = [] if declared is None else [f"Content-Type: {declared}"]
    with Caller(service) as caller:
        caller.send(request("POST /embed", *headers, body=content))
        answer = caller.answer()
    assert answer.status == 200, answer.body
    assert answer.body == service.post("/embed", content=content, headers={"Content-Type": "image/jpeg"}).content


def test_body_without_a_type_that_is_no_picture_is_named(service: Service) -> None:
    assert "a PDF document" in sentence(service, 415, "image_format_unsupported", b"%PDF-1.7")


def test_request_with_neither_type_nor_body_learns_how_to_send_one(service: Service) -> None:
    assert "curl -F file=@face.jpg" in sentence(service, 415, "content_type_unsupported", b"")


# ── what is in them ────────────────────────────────────────────────────────────────────────────────────────────────


def read_as_text(content: bytes, encoding: str, errors: str, written: str = "utf-8") -> bytes:
    return content.decode(encoding, errors).encode(written, "replace")


@pytest.mark.parametrize("content", [JPEG, PNG], ids=["JPEG", "PNG"])
@pytest.mark.parametrize(
    "how",
    [
        ("utf-8", "replace"),  # Node's toString(), Java's new String(bytes), requests' .text
        ("utf-8", "ignore"),
        ("latin-1", "strict"),  # PHP's utf8_encode
        ("cp1252", "replace"),
        ("cp1251", "replace"),
        ("utf-8", "replace", "ascii"),  # .NET's Encoding.ASCII
        ("cp437", "strict", "utf-16"),  # PowerShell's > file
    ],
    ids=" ".join,
)
def test_picture_that_was_read_as_text_is_named(service: Service, content: bytes, how: Any) -> None:
    text = read_as_text(content, *how)
    why = sentence(service, 415, "image_format_unsupported", text, Content_Type="image/png")
    assert "read as text" in why
    assert "binary mode" in why


@pytest.mark.parametrize("how", [("utf-8", "replace"), ("utf-8", "ignore"), ("latin-1", "strict")], ids=" ".join)
def test_webp_that_was_read_as_text_is_named_where_its_length_shows_it(service: Service, how: Any) -> None:
    text = read_as_text(WEBP[:4] + b"\x8a" + WEBP[5:], *how)
    assert "read as text" in sentence(service, 415, "image_format_unsupported", text)


def test_png_whose_line_ends_were_changed_was_read_as_text(service: Service) -> None:
    for changed in (PNG.replace(b"\r\n", b"\n"), PNG.replace(b"\n", b"\r\n")):
        assert "read as text" in sentence(service, 415, "image_format_unsupported", changed)


@pytest.mark.parametrize(
    ("content", "named"),
    [(str(JPEG).encode(), "Python's text of a bytes object"), (b"[object Blob]", "the name of a JavaScript object")],
)
def test_text_in_place_of_the_bytes_is_named(service: Service, content: bytes, named: str) -> None:
    assert named in sentence(service, 415, "image_format_unsupported", content)


@pytest.mark.parametrize(
    ("major", "compatible", "named"),
    [
        (b"tmap", (b"mif1", b"heic"), "a HEIC/HEIF image"),
        (b"mif1", (b"heix", b"miaf"), "a HEIC/HEIF image"),
        (b"heic", (), "a HEIC/HEIF image"),
        (b"mif1", (b"miaf",), "a HEIF image"),
        (b"mif1", (b"avif", b"miaf"), "an AVIF image"),
        (b"isom", (b"iso2", b"avc1", b"mp41"), "an MP4 or QuickTime file"),
    ],
)
def test_media_file_is_named_by_all_its_brands(
    service: Service, major: bytes, compatible: tuple[bytes, ...], named: str
) -> None:
    box = b"ftyp" + major + b"\0\0\0\0" + b"".join(compatible)
    content = (4 + len(box)).to_bytes(4) + box + b"\0\0\0\x08mdatheic"
    assert f"The file is {named}." in sentence(service, 415, "image_format_unsupported", content)


# ── the inputs that were reported ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not CASES.is_dir(), reason=f"needs {CASES}")
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("boundary_equals_unquoted.http", 200, "embedding"),
        ("boundary_equals_quoted.http", 200, "embedding"),
        ("gzip_form.http", 415, "must not be compressed"),
        ("heif_major_tmap.jpg", 415, "HEIC/HEIF"),
        ("face_read_as_utf8.png", 415, "read as text, which destroys it: open the file in binary mode"),
    ],
)
def test_reported_input_is_answered_rightly(service: Service, name: str, status: int, said: str) -> None:
    sent = (CASES / name).read_bytes()
    with Caller(service) as caller:
        caller.send(sent if name.endswith(".http") else request("POST /embed", body=sent))
        answer = caller.answer()
    assert answer.status == status, answer.body
    assert said in answer.body.decode()
