"""mosec with batching, on ONNX Runtime as it comes or on our session. It takes the picture as the request's body.

PEER_MODEL=… PEER_ENGINE=onnxruntime|own python mosec_server.py --port PORT
"""

import os
from pathlib import Path
from typing import Any

from mosec import Server, Worker

from benchmarks.lib import bare, faces

MAX_BATCH = 8
WAIT_MS = 2
"""Longest wait for a batch to fill."""


class Recogniser(Worker):
    """One worker, batches of at most 8."""

    def __init__(self) -> None:
        """Load the model, in the worker."""
        super().__init__()
        self.run = bare.open_engine(os.environ["PEER_ENGINE"], Path(os.environ["PEER_MODEL"]), range(1, MAX_BATCH + 1))

    def deserialize(self, data: bytes) -> Any:
        """The body's picture as a crop."""
        return faces.decoded(data)

    def forward(self, data: list[Any]) -> list[dict[str, Any]]:
        """Answers of a batch."""
        rows = self.run(data)
        return [{"embedding": row.tolist(), "embedding_shape": [len(row)], "embedding_dim": len(row)} for row in rows]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Recogniser, num=1, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS)
    server.run()
