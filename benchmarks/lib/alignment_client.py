"""Sends crops to `/embed/batch` in each way, for `alignment.py`."""

import io
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Self

import httpx
import numpy as np
from numpy.typing import NDArray

from arcface_api.bench.connection import Address
from arcface_api.wire import ALIGNMENT_HEADER, EMBEDDING_VALID_HEADER, MediaType
from benchmarks.lib.alignment_crops import Sent

WAYS: dict[str, dict[str, str]] = {
    "stretched": {"align": "none", "fit": "stretch"},
    "letterboxed": {"align": "none", "fit": "letterbox"},
    "auto": {"align": "auto", "fit": "stretch"},
    "landmarks": {"align": "landmarks"},
}
"""How a crop is sent, and the query that says so."""
TIMEOUT_SECONDS = 300.0


class Client:
    """One service's client; several threads may use it at once."""

    def __init__(self, address: Address) -> None:
        """Nothing is sent yet."""
        self._client = httpx.Client(base_url=f"http://{address.host_header}", timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def embed(self, batch: Sequence[Sent], way: str) -> tuple[NDArray[np.float32], list[str]]:
        """Embeddings of some crops, (n, dim) normalised, and what became of each one's alignment.

        The script ends where a crop is refused.
        """
        answer = self._post(batch, way, MediaType.NPY)
        if "0" in answer.headers[EMBEDDING_VALID_HEADER]:
            results = self._post(batch, way, MediaType.JSON).json()["results"]
            name, problem = next(
                (face.name, found["problem"]) for face, found in zip(batch, results, strict=True) if "problem" in found
            )
            raise SystemExit(f"{name}, {way}: {problem['detail']}")
        rows = np.load(io.BytesIO(answer.content), allow_pickle=False)
        return rows, answer.headers[ALIGNMENT_HEADER].split(", ")

    def _post(self, batch: Sequence[Sent], way: str, media_type: MediaType) -> httpx.Response:
        """The answer to one batch request; refused for lack of room, it comes back after Retry-After."""
        by_labels = way == "landmarks"
        files = [("files", face.framed_content if by_labels else face.content) for face in batch]
        form = {"landmarks": json.dumps([face.labels for face in batch])} if by_labels else {}
        while True:
            answer = self._client.post(
                "/embed/batch",
                params={**WAYS[way], "normalize": "true"},
                headers={"Accept": media_type},
                files=files,
                data=form,
            )
            if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        if answer.status_code != HTTPStatus.OK:
            raise SystemExit(f"{way}: the service answered {answer.status_code}: {answer.text[:500]}")
        return answer
