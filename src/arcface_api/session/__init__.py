"""One model on one execution provider: which, with what arithmetic, proved to be right.

    ModelContent ─choosing─▶ onnx_cpu · openvino_cpu · onnx_gpu ─proving─▶ Chosen(session, cosine, reason)
                                  └── graphs, cache                          session.run(crops) ─▶ features (n, dim)

Left alone, ONNX Runtime sizes its threads from the host and falls back to the CPU in silence, and OpenVINO chooses
bfloat16 in silence. All of that is settled here, and told.
"""

from arcface_api.session.cache import Cache
from arcface_api.session.choose import Chosen, Wish, check_installation, open_reference, open_session
from arcface_api.session.model import ModelContent, Session
from arcface_api.session.onnx_gpu import GPU_PROVIDERS, TENSORRT_PROVIDER
from arcface_api.session.proving import is_batch_invariant
from arcface_api.session.self_test import probe_crops

__all__ = [
    "GPU_PROVIDERS",
    "TENSORRT_PROVIDER",
    "Cache",
    "Chosen",
    "ModelContent",
    "Session",
    "Wish",
    "check_installation",
    "is_batch_invariant",
    "open_reference",
    "open_session",
    "probe_crops",
]
