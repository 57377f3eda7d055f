"""What computes the embeddings: a model loaded into this process, or a running service.

One module, because both return rows, names and errors in the same form.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import httpx
import numpy as np

from arcface_api import __version__
from arcface_api.arrays import Embedding, InputSpec
from arcface_api.errors import EvaluationError
from arcface_api.outbound import proxy_for, tls_context
from arcface_api.settings import Settings
from arcface_api.wire import ALIGNMENT_HEADER, MODEL_FINGERPRINT_HEADER, Align, Fit, MediaType

if TYPE_CHECKING:
    from arcface_api.packs import InstalledPack

REQUESTS_IN_FLIGHT = 4
"""Groups of pictures in progress at once: one is read, one sent or decoded, one runs, one comes back."""
GROUP_PICTURES, GROUP_BYTES = 32, 16 * 1024 * 1024
"""Most of a group, unless a single picture is larger: this bounds the memory."""
PATIENCE_SECONDS = 300.0
"""How long a request is repeated while the service refuses it because it is full, late or restarting."""
RETRY_SECONDS = 1.0
"""Until the next attempt where the refusal has no Retry-After."""
TIMEOUT_SECONDS = 120.0
"""Longer than the service's own default (`ARCFACE_REQUEST_TIMEOUT_SECONDS`)."""


STATED_FACTS = ("pack", "model", "fingerprint", "embedding_dim", "provider", "precision", "version")
"""Of `ModelFacts`, those that `/info` states under the same names."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What made the embeddings. A threshold holds only for embeddings made in the same way."""

    pack: str
    model: str
    fingerprint: str
    embedding_dim: int
    provider: str
    precision: str
    align: str
    fit: str
    """Of pictures that are not aligned."""
    regressor_sha256: str | None
    """Of the landmark regressor; None unless `align=auto` uses it."""
    flip: bool
    version: str
    """Of arcface-api where the model runs."""
    url: str | None
    """Of the service; None: the model ran in this process."""


class PreparedPicture(NamedTuple):
    """A picture to embed."""

    content: bytes
    """A JPEG, PNG or WebP file."""
    landmarks: list[list[float]] | None = None
    """Five pairs x, y in its pixels, with `align=landmarks`."""


class EmbeddedPicture(NamedTuple):
    """A picture's raw embedding, and an `Alignment`."""

    embedding: Embedding
    alignment: str


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Embeds groups of pictures, several at once."""

    facts: ModelFacts
    embed: Callable[[Sequence[PreparedPicture]], Awaitable[list[EmbeddedPicture | str]]]
    """Returns the embedding of each picture in order, or the reason why it has none.

    Raises ArcFaceError if no picture can be embedded any more.
    """
    group_pictures: int = GROUP_PICTURES
    group_bytes: int = GROUP_BYTES


OpenBackend: TypeAlias = AbstractAsyncContextManager[Backend]


@asynccontextmanager
async def open_local(
    pack: "InstalledPack",
    settings: Settings,
    *,
    align: Align | None = None,
    fit: Fit | None = None,
    flip: bool = False,
    feeds: Sequence[InputSpec] = (),
) -> AsyncIterator[Backend]:
    """Load the pack's recogniser. What is None is as the settings or the pack say; `feeds` is as for `open_embedder`.

    Raises PackError, ModelFailed or RuntimeUnfit if it cannot be loaded.
    """
    # These need the model runtimes, which are not needed to use a service.
    from arcface_api.embedder import Embedded, Picture  # noqa: PLC0415
    from arcface_api.loading import default_options, open_embedder, regressor_content  # noqa: PLC0415
    from arcface_api.packs import Role  # noqa: PLC0415

    settings = settings.model_copy(update={"queue_capacity": REQUESTS_IN_FLIGHT * GROUP_PICTURES, "workers": 1})
    default = default_options(pack, settings)
    options = replace(default, align=align or default.align, fit=fit or default.fit, flip=flip)
    embedder = open_embedder(pack, {Role.RECOGNISER: pack.read(Role.RECOGNISER)}, settings, feeds)

    async def embed(pictures: Sequence[PreparedPicture]) -> list[EmbeddedPicture | str]:
        """The service's path from bytes to embedding, without HTTP."""
        results = await embedder.embed_many([Picture(*picture) for picture in pictures], options)
        return [
            EmbeddedPicture(result.embedding, result.alignment.value) if isinstance(result, Embedded) else str(result)
            for result in results
        ]

    try:
        recogniser = embedder.recogniser
        facts = ModelFacts(
            pack=pack.manifest.name,
            model=recogniser.name,
            fingerprint=recogniser.fingerprint,
            embedding_dim=recogniser.dim,
            provider=recogniser.session.provider,
            precision=recogniser.session.precision,
            align=options.align.value,
            fit=options.fit.value,
            regressor_sha256=regressor_content().sha256 if options.align is Align.AUTO else None,
            flip=options.flip,
            version=__version__,
            url=None,
        )
        yield Backend(facts=facts, embed=embed)
    finally:
        await embedder.close()


@asynccontextmanager
async def open_remote(
    url: str, *, align: Align | None = None, fit: Fit | None = None, flip: bool = False, api_key: str | None = None
) -> AsyncIterator[Backend]:
    """Use the service at this URL. What is None is as the service is set. `api_key` is sent to it.

    Raises EvaluationError if nothing answers there, or something other than arcface-api, and SettingInvalid if a
    variable for proxies or certificates cannot be used.
    """
    query = {name: choice.value for name, choice in (("align", align), ("fit", fit)) if choice}
    if flip:
        query["flip"] = "true"
    address, connections = httpx.URL(url), httpx.Limits(max_connections=REQUESTS_IN_FLIGHT)
    async with httpx.AsyncClient(
        base_url=address,
        params=query,
        headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
        timeout=TIMEOUT_SECONDS,
        limits=connections,
        follow_redirects=True,
        proxy=proxy_for(address),
        verify=tls_context(address),
        trust_env=False,
    ) as client:
        try:
            answer = await client.get("/info", params={})
            if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST):
                raise EvaluationError(f"The service at {url} answers {_refusal(answer)}")
            info = answer.json()
            crop, limits = info["crop"], info["limits"]
            used_align = query.get("align", crop["align"])
            facts = ModelFacts(
                **{name: info[name] for name in STATED_FACTS},
                align=used_align,
                fit=query.get("fit", crop["fit"]),
                regressor_sha256=crop["regressor_sha256"] if used_align == Align.AUTO else None,
                flip=flip,
                url=url,
            )
            backend = Backend(
                facts=facts,
                embed=_Remote(client, facts).embed,
                group_pictures=min(GROUP_PICTURES, limits["max_batch_files"], limits["queue_capacity"]),
                group_bytes=min(GROUP_BYTES, limits["max_batch_bytes"]),
            )
        except httpx.HTTPError as error:
            raise EvaluationError(
                f"Nothing answers at {url}: {error or type(error).__name__}. Start the service there, or leave out"
                " --url to run the model here."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise EvaluationError(f"The answer of {url}/info is not arcface-api's. Check the address.") from None
        yield backend


class _Remote:
    """`/embed/batch` of a running service."""

    def __init__(self, client: httpx.AsyncClient, facts: ModelFacts) -> None:
        self._client, self._fingerprint = client, facts.fingerprint
        self._service = f"The service at {facts.url}"

    async def embed(self, pictures: Sequence[PreparedPicture]) -> list[EmbeddedPicture | str]:
        """As `Backend.embed`; pictures that are together too large are sent in halves."""
        answer = await self._post(pictures)
        fingerprint = answer.headers.get(MODEL_FINGERPRINT_HEADER, self._fingerprint)
        if fingerprint != self._fingerprint:
            raise EvaluationError(
                f"{self._service} changed its model: the fingerprint was {self._fingerprint} and is now {fingerprint}."
                " Embeddings of two models cannot be compared; start again."
            )
        body = _json(answer)
        if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            if len(pictures) > 1:  # too large together, for the service or for a proxy before it
                half = len(pictures) // 2
                return [*await self.embed(pictures[:half]), *await self.embed(pictures[half:])]
            if "detail" in body:
                return [str(body["detail"])]
        if answer.status_code != HTTPStatus.OK:
            raise EvaluationError(f"{self._service} answers {_refusal(answer)}")
        results, alignments = body.get("results", []), answer.headers.get(ALIGNMENT_HEADER, "").split(", ")
        if not len(results) == len(alignments) == len(pictures):
            raise EvaluationError(f"{self._service} does not answer with a result for each picture.")
        return [
            EmbeddedPicture(np.array(result["embedding"], np.float32), alignment)
            if "embedding" in result
            else str(result["problem"]["detail"])
            for result, alignment in zip(results, alignments, strict=True)
        ]

    async def _post(self, pictures: Sequence[PreparedPicture]) -> httpx.Response:
        """An answer other than a refusal, which is repeated when the service says."""
        files = [("files", ("picture", picture.content, MediaType.BYTES.value)) for picture in pictures]
        landmarks = [picture.landmarks for picture in pictures]
        form = {"landmarks": json.dumps(landmarks)} if any(landmarks) else None
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = await self._client.post("/embed/batch", files=files, data=form)
            except httpx.HTTPError as error:
                raise EvaluationError(
                    f"{self._service} no longer answers: {error or type(error).__name__}. Its log may say why; start"
                    " again when it runs."
                ) from None
            if answer.status_code not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
                return answer
            try:
                wait = max(0.0, float(answer.headers.get("Retry-After", RETRY_SECONDS)))
            except ValueError:  # a date, as a proxy may send
                wait = RETRY_SECONDS
            if time.monotonic() + wait > until:
                raise EvaluationError(
                    f"{self._service} has refused a request for {PATIENCE_SECONDS:g} s, finally with {_refusal(answer)}"
                )
            await asyncio.sleep(wait)


def _json(answer: httpx.Response) -> dict[str, Any]:
    with suppress(ValueError):
        body = answer.json()
        if isinstance(body, dict):
            return body
    return {}


def _refusal(answer: httpx.Response) -> str:
    """Status, and the service's own sentence where there is one."""
    detail = _json(answer).get("detail", "without a reason; something else may answer in front of the service.")
    return f"{answer.status_code}: {detail}"
