"""One model on one execution provider, at an explicit precision, tested before it serves.

    ModelContent ─plan, choose─▶ onnx_cpu · openvino_cpu · onnx_gpu ─self_test─▶ Chosen(session, cosine, reason)

By default ONNX Runtime sizes its threads from the host and falls back to the CPU silently, and OpenVINO chooses
bfloat16 silently. Here threads, provider and precision are always set, checked and reported.
"""

from arcface_api.session.cache import Cache
from arcface_api.session.choose import Chosen, open_reference, open_session
from arcface_api.session.lanes import LaneConfig
from arcface_api.session.onnx_cpu import FedSession, ModelContent, OnnxCpuSession, Session
from arcface_api.session.onnx_gpu import GPU_PROVIDERS, TENSORRT_PROVIDER
from arcface_api.session.plan import SessionConfig, check_installation
from arcface_api.session.self_test import (
    MAX_SIMILARITY,
    MIN_COSINE,
    median_similarity,
    probe_crops,
    reference_features,
)

__all__ = [
    "GPU_PROVIDERS",
    "MAX_SIMILARITY",
    "MIN_COSINE",
    "TENSORRT_PROVIDER",
    "Cache",
    "Chosen",
    "FedSession",
    "LaneConfig",
    "ModelContent",
    "OnnxCpuSession",
    "Session",
    "SessionConfig",
    "check_installation",
    "median_similarity",
    "open_reference",
    "open_session",
    "probe_crops",
    "reference_features",
]
