"""The origin of the brief: FastAPI, UploadFile, the insightface package's recogniser on a crop, blocking.

    python origin.py MODEL PORT async|threads

`async`: an `async def` operation, so that the model blocks the event loop, as in the origin. `threads`: the same with
`def`, which FastAPI runs in its thread pool.
"""

import sys
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

model, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
recogniser = ArcFaceONNX(model)
recogniser.prepare(ctx_id=-1)
app = FastAPI()


def embed(content: bytes) -> dict[str, Any]:
    """The answer for one picture."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    embedding = recogniser.get_feat(picture)[0]
    return {"embedding": embedding.tolist(), "embedding_shape": [len(embedding)], "embedding_dim": len(embedding)}


if kind == "async":

    @app.post("/embed")
    async def embed_on_the_event_loop(file: UploadFile) -> dict[str, Any]:
        """One picture, one embedding."""
        return embed(await file.read())

else:

    @app.post("/embed")
    def embed_in_a_thread(file: UploadFile) -> dict[str, Any]:
        """One picture, one embedding."""
        return embed(file.file.read())


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
