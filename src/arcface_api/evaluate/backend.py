"""Embeddings from a service that runs, as any caller gets them: `/embed/batch` as npy, and `/embed` for the reasons."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from pydantic import ValidationError

from arcface_api.api.answers import InfoAnswer
from arcface_api.errors import EvaluationFailed
from arcface_api.evaluate.source import REQUESTS_IN_FLIGHT, EmbeddedPicture, GroupLimits, ModelFacts
from arcface_api.wire import (
    ALIGNMENT_HEADER,
    EMBEDDING_VALID_HEADER,
    MODEL_FINGERPRINT_HEADER,
    Align,
    Fit,
    MediaType,
)

PATIENCE_SECONDS = 300.0
"""So long a request is sent again while the service refuses it because it is full, late or restarting."""
RETRY_SECONDS = 1.0
"""Until the next try where no Retry-After tells."""
TIMEOUT_SECONDS = 120.0
"""More than a service takes by default to give a request up (`ARCFACE_REQUEST_TIMEOUT_SECONDS`)."""
REFUSALS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@asynccontextmanager
async def open_over_http(
    url: str, align: Align | None = None, fit: Fit | None = None, *, flip: bool = False
) -> AsyncIterator["OverHttp"]:
    """The service at a URL.

    Args:
        url: `http://host:port` or `https://…`, below which its operations are.
        align: What is asked for; None: as the service is set.
        fit: Likewise.
        flip: Add the embedding of the mirror image to each.

    Raises:
        EvaluationFailed: Nothing answers there, or it is no arcface-api.
    """
    query = {name: choice.value for name, choice in (("align", align), ("fit", fit)) if choice is not None}
    if flip:
        query["flip"] = "true"
    connections = httpx.Limits(max_connections=REQUESTS_IN_FLIGHT)
    async with httpx.AsyncClient(
        base_url=url, params=query, timeout=TIMEOUT_SECONDS, limits=connections, follow_redirects=True
    ) as client:
        try:
            about = InfoAnswer.model_validate_json((await client.get("/info", params={})).content)
        except httpx.HTTPError as error:
            raise EvaluationFailed(
                f"Nothing answers at {url}: {error or type(error).__name__}. Start the service there, or leave out"
                " --url: then the model runs here."
            ) from None
        except ValidationError:
            raise EvaluationFailed(f"What answers at {url}/info is not arcface-api. Check the address.") from None
        yield OverHttp(client, url, about, query)


class OverHttp:
    """A `Source`."""

    def __init__(self, client: httpx.AsyncClient, url: str, about: InfoAnswer, query: Mapping[str, str]) -> None:
        align = query.get("align", about.crop.align)
        self.facts = ModelFacts(
            about.pack,
            about.model,
            about.fingerprint,
            about.embedding_dim,
            about.provider,
            about.precision,
            align,
            query.get("fit", about.crop.fit),
            about.crop.regressor_sha256 if align == Align.AUTO.value else None,
            "flip" in query,
            about.version,
            url,
        )
        allowed, own = about.limits, GroupLimits()
        self.limits = GroupLimits(
            min(own.pictures, allowed.max_batch_files, allowed.queue_capacity), min(own.bytes, allowed.max_batch_bytes)
        )
        self._client = client

    async def embed(self, contents: Sequence[bytes]) -> list[EmbeddedPicture | str]:
        """As `Source`."""
        files = [("files", ("picture", content, MediaType.BYTES.value)) for content in contents]
        answer = await self._post("/embed/batch", files, MediaType.NPY)
        if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # a picture, or something before the service
            return [await self._embed_alone(content) for content in contents]
        if answer.status_code != HTTPStatus.OK:
            raise EvaluationFailed(f"{self._service()} answers {_told(answer)}")
        valid = answer.headers.get(EMBEDDING_VALID_HEADER, "")
        alignments = answer.headers.get(ALIGNMENT_HEADER, "").split(", ")
        try:
            rows = np.load(BytesIO(answer.content))
        except (ValueError, EOFError):
            rows = np.empty(0)
        shape = (len(contents), self.facts.embedding_dim)
        if rows.shape != shape or len(valid) != len(contents) or len(alignments) != len(contents):
            raise EvaluationFailed(f"{self._service()} answers something else than an embedding for each picture.")
        return [
            EmbeddedPicture(row, alignment) if digit == "1" else await self._embed_alone(content)
            for row, alignment, digit, content in zip(rows, alignments, valid, contents, strict=True)
        ]

    async def _embed_alone(self, content: bytes) -> EmbeddedPicture | str:
        """One picture: its embedding, or the problem that the service tells."""
        answer = await self._post("/embed", [("file", ("picture", content, MediaType.BYTES.value))], MediaType.JSON)
        body = _json(answer)
        if answer.status_code == HTTPStatus.OK and "embedding" in body:
            return EmbeddedPicture(np.array(body["embedding"], np.float32), answer.headers.get(ALIGNMENT_HEADER, ""))
        if "code" in body and "detail" in body:
            return str(body["detail"])
        raise EvaluationFailed(f"{self._service()} answers {_told(answer)}")

    async def _post(self, path: str, files: list[tuple[str, tuple[str, bytes, str]]], accept: str) -> httpx.Response:
        """An answer that is no refusal; after one, the request is sent again when the service says."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = await self._client.post(path, files=files, headers={"Accept": accept})
            except httpx.HTTPError as error:
                raise EvaluationFailed(
                    f"{self._service()} does not answer any more: {error or type(error).__name__}. Its log may say"
                    " why; start again when it runs."
                ) from None
            if answer.status_code not in REFUSALS:
                self._check_model(answer)
                return answer
            wait = _retry_after(answer)
            if time.monotonic() + wait > until:
                raise EvaluationFailed(
                    f"{self._service()} has refused a request for {PATIENCE_SECONDS:g} s, at last with {_told(answer)}"
                )
            await asyncio.sleep(wait)

    def _check_model(self, answer: httpx.Response) -> None:
        told = answer.headers.get(MODEL_FINGERPRINT_HEADER, self.facts.fingerprint)
        if told != self.facts.fingerprint:
            raise EvaluationFailed(
                f"{self._service()} changed its model: the fingerprint was {self.facts.fingerprint} and is {told}."
                " Embeddings of two models cannot be compared; start again."
            )

    def _service(self) -> str:
        return f"The service at {self.facts.url}"


def _retry_after(answer: httpx.Response) -> float:
    """Seconds; a service in front of this one may also give a date, which is not read."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", RETRY_SECONDS)))
    except ValueError:
        return RETRY_SECONDS


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _told(answer: httpx.Response) -> str:
    """Status and the service's own sentence, where there is one."""
    detail = _json(answer).get("detail", "without a reason; something else may stand in front of the service.")
    return f"{answer.status_code}: {detail}"
