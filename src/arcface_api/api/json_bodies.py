"""JSON in a request's body: pictures as base64, and landmarks, also those in a form's part.

    {"image": "<base64>", "landmarks": [[x, y], …]}        {"images": ["<base64>", …], "landmarks": [[[x, y], …], …]}

Base64 is read with or without padding and line breaks, in both alphabets of RFC 4648, and from a `data:` URL. Nothing
else is guessed: a character that is dropped or taken for another one could give another picture.
"""

import binascii
import re
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, NoReturn

import orjson

from arcface_api import errors
from arcface_api.api.options import OPTION_NAMES
from arcface_api.wire import Align
from arcface_api.wording import counted, did_you_mean

JSON_TYPE = "application/json"
IMAGE_KEY, IMAGES_KEY, LANDMARKS = "image", "images", "landmarks"
LANDMARKS_EXAMPLE = "[[38,52],[74,52],[56,72],[42,92],[71,92]]"
"""ArcFace's template, rounded."""
EXAMPLES = {IMAGE_KEY: '{"image": "<base64>"}', IMAGES_KEY: '{"images": ["<base64>", …]}'}
_PATHS = {IMAGE_KEY: "/embed", IMAGES_KEY: "/embed/batch"}
PARTS_A_PICTURE = 32
"""Most commas and brackets for a picture, which has about twenty with its landmarks. Thirty million brackets would
become a gigabyte of lists."""
KEYS_NAMED, KEY_CHARACTERS = 5, 40
"""How many keys an error names, and with how many characters of each."""

_TYPES = {str: "a string", list: "a list", dict: "an object", bool: "a truth value", type(None): "null"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE_NAME = re.compile(r"@|.{1,1000}\.[A-Za-z]\w{1,4}$")
_NEITHER_ALPHABET = re.compile(r"[^A-Za-z0-9+/=_\s-]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SEND = "Send the bytes of the file as base64 (base64 -w0 face.jpg)."


def text_bytes(image_bytes: int) -> int:
    """Most bytes of the JSON for so many bytes of pictures: base64 takes a third more, some writers escape + or /."""
    return image_bytes * 3 // 2


def read_one(body: BytesIO) -> tuple[bytes, Any]:
    """The picture and the landmarks (or None) of `/embed`. Closes `body`, which takes as much memory as they do.

    Raises:
        JsonMalformed, FileMissing, FileRepeated, ParameterInvalid: The JSON cannot be used.
        Base64Invalid: The picture is no base64.
    """
    document = _document(body, IMAGE_KEY, 1)
    content = _decoded(document[IMAGE_KEY], IMAGE_KEY)
    if isinstance(content, errors.Base64Invalid):
        raise content
    return content, document.get(LANDMARKS)


def read_many(body: BytesIO, most: int) -> tuple[Iterator[bytes | errors.Base64Invalid], Any]:
    """The pictures of `/embed/batch`, or the errors of those that are no base64, and the landmarks. Closes `body`.

    Raises:
        TooManyFiles: There are more than `most`.
        Exception: Those of `read_one`.
    """
    document = _document(body, IMAGES_KEY, most)
    texts = document[IMAGES_KEY]
    if not isinstance(texts, list):
        _malformed(f"The key {IMAGES_KEY} is {_type(texts)}, not a list", IMAGES_KEY)
    if not texts:
        raise errors.FileMissing(f"The list {IMAGES_KEY} is empty. Send {EXAMPLES[IMAGES_KEY]}.")
    if len(texts) > most:
        raise errors.TooManyFiles(
            f"The list {IMAGES_KEY} has more than {counted(most, 'picture')}, the most allowed. Send them in"
            " several requests."
        )
    texts.reverse()
    total = len(texts)  # each text is dropped when it is decoded
    return (_decoded(texts.pop(), f"{IMAGES_KEY}[{number}]") for number in range(total)), document.get(LANDMARKS)


def landmarks(sent: Any, align: Align, files: int | None = None) -> Any:
    """The landmarks as JSON has them, from JSON or a form's bytes; None if not needed.

    `files`: those of a batch, None for one picture. Raises ParametersConflict if `align` does not use them, and
    LandmarksInvalid if they are missing, not JSON, or not one for each file.
    """
    is_left_out = sent is None or sent == b""  # a form that is not filled in sends an empty part
    if align is not Align.LANDMARKS:
        if not is_left_out:
            raise errors.ParametersConflict(
                f"The request has {LANDMARKS}, but align is {align}. Add align=landmarks to the query, or leave"
                " them out."
            )
        return None
    is_batch = files is not None
    example = f"[{LANDMARKS_EXAMPLE},…]" if is_batch else LANDMARKS_EXAMPLE
    if is_left_out:
        raise errors.LandmarksInvalid(
            f"align=landmarks needs a form with the part {LANDMARKS}, or JSON with the key {LANDMARKS}: left eye, right"
            " eye, nose tip, left and right mouth corner as JSON (curl -F"
            f" {'files=@a.jpg -F files=@b.jpg' if is_batch else 'file=@face.jpg'} -F '{LANDMARKS}={example}')."
        )
    if isinstance(sent, bytes):
        try:
            sent = orjson.loads(sent)
        except orjson.JSONDecodeError:
            raise errors.LandmarksInvalid(
                f"The form's part {LANDMARKS} is not JSON. Send five pairs of finite numbers x, y"
                f"{' for each file' if is_batch else ''}: {example}."
            ) from None
    if is_batch and sent is not None and not (isinstance(sent, list) and len(sent) == files):
        what = f"a list of {len(sent)}" if isinstance(sent, list) else "not a list"
        raise errors.LandmarksInvalid(
            f"{LANDMARKS} is {what}, but {counted(files or 0, 'file')} came. Send a JSON list with the five points"
            f" of each file, in order: {example}."
        )
    return sent


def _document(body: BytesIO, key: str, pictures: int) -> dict[str, Any]:
    """The JSON object in `body`, which has `key`."""
    content = body.getvalue()  # does not copy
    body.close()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        _malformed("The JSON is UTF-16 or UTF-32, but JSON is UTF-8 (RFC 8259)", key)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.isascii():
        _malformed("The JSON has characters other than ASCII, which neither its keys nor base64 have", key)
    most = PARTS_A_PICTURE * (pictures + 1)
    if sum(map(content.count, (b",", b"[", b"{"))) > most:
        _malformed(f"The JSON has more than {most} values. A picture is one string, not a list of numbers", key)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        what = (
            f"not JSON, from character {error.pos + 1:,} on" if content else "empty"
        )  # its words are the parser's own
        _malformed(f"The body is {what}", key)
    if not isinstance(document, dict):
        _malformed(f"The JSON is {_type(document)}, not an object", key)
    if key not in document:
        raise _missing(document, key)
    if content.count(b'"%b"' % key.encode()) > 1:
        raise errors.FileRepeated(f"The JSON has more than one key {key}. Send one: {EXAMPLES[key]}.")
    for name in document:
        if name in OPTION_NAMES:  # ignored, it would give another vector than the caller expects
            raise errors.ParameterInvalid(
                f"{name} came in the JSON, where it has no effect. It belongs in the query: {_PATHS[key]}?{name}=…"
            )
        if name not in (key, LANDMARKS):
            raise errors.ParameterInvalid(
                f"There is no key {name[:KEY_CHARACTERS]}.{did_you_mean(name[:KEY_CHARACTERS], (key, LANDMARKS))}"
                f" Allowed are {key} and {LANDMARKS}: {EXAMPLES[key]}."
            )
    return document


def _missing(document: dict[str, Any], key: str) -> errors.FileMissing:
    found = ", ".join(name[:KEY_CHARACTERS] for name in list(document)[:KEYS_NAMED])
    advice = f"{', only ' if found else ''}{found}. Send {EXAMPLES[key]}."
    for other, path in _PATHS.items():
        if other in document:
            advice = f". JSON with {other} belongs to {path}."
    return errors.FileMissing(f"The JSON has no key {key}{advice}")


def _malformed(what: str, key: str) -> NoReturn:
    raise errors.JsonMalformed(f"{what}. Send {EXAMPLES[key]} in UTF-8.") from None


def _type(value: object) -> str:
    return _TYPES.get(type(value), "a number")


def _decoded(value: object, where: str) -> bytes | errors.Base64Invalid:
    """The bytes of a picture. `where` names it in an error."""
    if not isinstance(value, str):
        return errors.Base64Invalid(f"{where} is {_type(value)}, not a string. {_SEND}")
    text = value.strip()
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            return errors.Base64Invalid(f"{where} is a data: URL without ;base64, before its data. {_SEND}")
    with suppress(ValueError):
        return binascii.a2b_base64(text, strict_mode=True)
    with suppress(ValueError):
        return _decoded_otherwise(text.strip().encode("ascii"))
    return errors.Base64Invalid(f"{where} is not base64: {_why_not(text)}. {_SEND}")


def _decoded_otherwise(text: bytes) -> bytes:
    """Base64 with line breaks, without padding, or with - and _; raises ValueError if it is none."""
    text = text.translate(None, b"\r\n\t")
    if not (b"+" in text or b"/" in text):
        text = text.translate(_URL_SAFE)
    if not text.endswith(b"="):
        text += b"=" * (-len(text) % 4)
    return binascii.a2b_base64(text, strict_mode=True)


def _why_not(text: str) -> str:
    """What is wrong, without quoting what may be a picture."""
    stranger = _NEITHER_ALPHABET.search(text)
    causes = (
        (_URL.match(text), "it is a URL, and this service fetches no URLs"),
        (text.startswith(("b'", 'b"')), "it is Python's text of a bytes object; .decode() makes a string of the bytes"),
        (_FILE_NAME.match(text), "it looks like the name of a file, and this service opens no files"),
        (" " in text.strip(), "it has spaces, which a + becomes in text that is decoded as a part of a URL or form"),
        (stranger, f"character {stranger.start() + 1 if stranger else 0:,} is not in its alphabet"),
        ({"+", "/"} & {*text} and {"-", "_"} & {*text}, "it mixes both alphabets, + and / with - and _"),
    )
    return next((cause for is_so, cause in causes if is_so), "it is cut short, or has = before its end")
