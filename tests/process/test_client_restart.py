"""Promise of the client where the real service is killed in the middle of a job, and started again."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from arcface_api.client import Client, Embedding
from pictures import picture_bytes
from serving import Run

PICTURES, KILLED_AT = 300, (60, 200)


def test_killed_service_loses_no_picture(run: Run, tiny_recogniser: Path) -> None:
    services = [run("--pack", tiny_recogniser)]
    port = services[0].port
    restarts: list[threading.Thread] = []

    def restart() -> None:
        os.kill(services[-1].process.pid, signal.SIGKILL)
        services[-1].end()
        services.append(run("--pack", tiny_recogniser, "--port", port))

    def contents() -> Iterator[bytes]:
        for number in range(PICTURES):
            if number in KILLED_AT:
                restarts.append(threading.Thread(target=restart))
                restarts[-1].start()
            yield picture_bytes("PNG", (50 + number, 20))

    with Client(f"http://127.0.0.1:{port}") as client:
        results = list(client.embed_many(contents(), normalize=True))
        for each in restarts:
            each.join()
        assert len(services) == 1 + len(KILLED_AT)
        assert len(results) == PICTURES
        for number in range(0, PICTURES, 37):
            result = results[number]
            assert isinstance(result, Embedding)
            alone = client.embed(picture_bytes("PNG", (50 + number, 20)), normalize=True)
            assert result.vector.tobytes() == alone.vector.tobytes()
