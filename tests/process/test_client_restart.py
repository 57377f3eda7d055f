"""Promise of the client where the real service is killed in the middle of a job, and started again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from arcface_api.client import Client, Embedding
from pictures import picture_bytes
from serving import Run, free_port

PICTURES, KILLED_AT = 900, (20, 400)
"""So many results were given at each kill; the client has taken up to 257 pictures more by then."""


def picture(number: int) -> bytes:
    """No two are the same."""
    return picture_bytes("PNG", (50 + number % 300, 20 + number // 300))


@pytest.mark.timeout(900)
def test_killed_service_loses_no_picture(run: Run, tiny_recogniser: Path) -> None:
    port, taken = free_port(), [0]
    services = [run("--pack", tiny_recogniser, "--port", port)]
    services[0].logged("Listening on")

    def contents() -> Iterator[bytes]:
        for number in range(PICTURES):
            taken[0] = number
            yield picture(number)

    results = []
    with Client(f"http://127.0.0.1:{port}", retry_seconds=600) as client:
        for number, result in enumerate(client.embed_many(contents(), normalize=True)):
            if number in KILLED_AT:
                assert taken[0] < PICTURES - 1, "the job is not over"
                services[-1].process.kill()
                services[-1].end()
                services.append(run("--pack", tiny_recogniser, "--port", port))
            results.append(result)
        assert len(services) == 1 + len(KILLED_AT)
        assert len(results) == PICTURES
        for number in range(0, PICTURES, 37):
            result = results[number]
            assert isinstance(result, Embedding)
            assert result.vector.tobytes() == client.embed(picture(number), normalize=True).vector.tobytes()
