"""Embeddings from the embedder itself: the service's whole road, without HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from arcface_api import __version__
from arcface_api.embedder import Embedded, Embedder, EmbedOptions, Picture
from arcface_api.evaluate.source import (
    GROUP_PICTURES,
    REQUESTS_IN_FLIGHT,
    EmbeddedPicture,
    GroupLimits,
    ModelFacts,
)
from arcface_api.loading import open_embedder, regressor_content
from arcface_api.packs import InstalledPack, Role
from arcface_api.settings import Settings
from arcface_api.wire import Align


@asynccontextmanager
async def open_in_process(pack: InstalledPack, settings: Settings, options: EmbedOptions) -> AsyncIterator["InProcess"]:
    """The pack's recogniser, loaded here.

    Raises:
        PackError, ModelFailed, RuntimeUnfit: It cannot be loaded as the settings say.
    """
    room = settings.model_copy(update={"queue_capacity": REQUESTS_IN_FLIGHT * GROUP_PICTURES, "workers": 1})
    embedder = open_embedder(pack, {Role.RECOGNISER: pack.read(Role.RECOGNISER)}, room)
    try:
        yield InProcess(embedder, pack.manifest.name, options)
    finally:
        await embedder.close()


class InProcess:
    """A `Source`."""

    def __init__(self, embedder: Embedder, pack: str, options: EmbedOptions) -> None:
        recogniser = embedder.recogniser
        self.facts = ModelFacts(
            pack,
            recogniser.name,
            recogniser.fingerprint,
            recogniser.dim,
            recogniser.session.provider,
            recogniser.session.precision,
            options.align.value,
            options.fit.value,
            regressor_content().sha256 if options.align is Align.AUTO else None,
            options.flip,
            __version__,
            url=None,
        )
        self.limits = GroupLimits()
        self._embedder = embedder
        self._options = options

    async def embed(self, contents: Sequence[bytes]) -> list[EmbeddedPicture | str]:
        """As `Source`."""
        results = await self._embedder.embed_many([Picture(content) for content in contents], self._options)
        return [
            EmbeddedPicture(result.embedding, result.alignment.value) if isinstance(result, Embedded) else str(result)
            for result in results
        ]
