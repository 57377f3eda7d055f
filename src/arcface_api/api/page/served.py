"""Answers with the page's files, read once: caches keep them and ask whether they have changed."""

import hashlib
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import Request, Response

INDEX = "index.html"
SHAPE = "mean_shape_68.csv"
"""The head that the page turns by the head pose: the one from which the service measures it."""
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "csv": "text/csv; charset=utf-8",
}
HEADERS = {
    # Nothing inline, nothing from elsewhere; blob: and data: are the pictures that a person chooses, and their crops.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # keep, and ask each time: after an upgrade no old script meets a new page
}
_BASE = b'<base href="./">'
"""In the page: its links are relative to where it is published."""


Answering = Callable[[Request], Coroutine[Any, Any, Response]]


def page_routes() -> dict[str, Answering]:
    """What answers with each file, by its path; `/` is the page itself."""
    static = resources.files("arcface_api.api.page").joinpath("static")
    files = {file.name: file.read_bytes() for file in static.iterdir() if file.is_file()}
    files[SHAPE] = resources.files("arcface_api").joinpath(SHAPE).read_bytes()
    return {"/" if name == INDEX else f"/page/{name}": _answering(name, content) for name, content in files.items()}


def _answering(name: str, content: bytes) -> Answering:
    media_type = _TYPES[name.rpartition(".")[2]]

    async def answering(request: Request) -> Response:
        prefix, body = request.scope["root_path"], content
        if name == INDEX and prefix:  # it may have been asked for without the slash at the end
            body = body.replace(_BASE, f'<base href="{prefix}/">'.encode())
        return _answer(request, body, media_type)

    return answering


def _answer(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = HEADERS | {"ETag": tag}
    known = request.headers.get("if-none-match", "")
    if tag in {each.strip().removeprefix("W/") for each in known.split(",")}:  # weak: a proxy has compressed it
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
