"""LitServe with batching, on ONNX Runtime as it comes or on our session.

python litserve_server.py MODEL PORT onnxruntime|own
"""

import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request

from benchmarks.lib import bare, faces

MAX_BATCH = 8
BATCH_TIMEOUT_SECONDS = 0.002


class Recogniser(litserve.LitAPI):
    """One worker, batches of at most 8."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Load the model, in the worker."""
        self.run = bare.open_engine(sys.argv[3], Path(sys.argv[1]), range(1, MAX_BATCH + 1))

    def decode_request(self, request: Request) -> Any:
        """The form's picture as a crop."""
        return faces.decoded(request["file"].file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Crops stay a list."""
        return inputs

    def predict(self, crops: list[Any]) -> list[Any]:
        """Features of a batch."""
        return list(self.run(crops))

    def unbatch(self, output: list[Any]) -> list[Any]:
        """A row for each."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """The answer's body."""
        return {"embedding": output.tolist(), "embedding_shape": [len(output)], "embedding_dim": len(output)}


if __name__ == "__main__":
    api = Recogniser(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_SECONDS, api_path="/embed")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
