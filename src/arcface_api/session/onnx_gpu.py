"""ONNX Runtime on NVIDIA GPUs: CUDA and TensorRT, in float16 or float32.

    crops ─stack─▶ pixels (n, h, w, 3) uint8 ─▶ device buffer of that batch size ─▶ graph ─▶ device buffer ─▶ features

Pixels travel as bytes and are normalised on the device. Each batch size has buffers of its own that never move, so that
CUDA can record the work of one inference and replay it (a CUDA graph): at small batches launching the kernels one by
one takes longer than running them.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from arcface_api.arrays import Crop, Features, InputSpec
from arcface_api.errors import ArcFaceError, ModelFailed, RuntimeUnfit
from arcface_api.session.graphs import PIXELS, parse, take_pixels, to_float16
from arcface_api.session.model import ModelContent, check_features
from arcface_api.session.onnx_cpu import open_onnx, session_options

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
GPU_PROVIDERS = frozenset({CUDA_PROVIDER, TENSORRT_PROVIDER})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bound:
    """What one batch size runs with."""

    pixels: Any
    """OrtValue (n, height, width, 3) uint8 on the device."""
    features: Any
    """OrtValue (n, dim) float32 on the device."""
    binding: Any
    options: Any


class OnnxGpuSession:
    """A model on ONNX Runtime's CUDA or TensorRT provider; see `Session`."""

    def __init__(
        self,
        model: ModelContent,
        provider: str,
        precision: str,
        threads: int,
        batch_sizes: Sequence[int],
        engine_folder: Path | None,
    ) -> None:
        """Load a model on the GPU; nothing runs yet.

        Args:
            model: What to load.
            provider: `CUDA_PROVIDER` or `TENSORRT_PROVIDER`.
            precision: Arithmetic on the device.
            threads: Threads of what ONNX Runtime does on the host.
            batch_sizes: The only sizes that batches will have; each has its own buffers.
            engine_folder: Where TensorRT keeps its engines, whose building takes minutes; None: nowhere.

        Raises:
            RuntimeUnfit: The provider cannot be loaded: a driver or library is missing.
            ModelFailed: The model cannot be loaded, or a part of it would run on the CPU.
        """
        self.provider = provider
        self.precision = precision
        self.threads = threads
        self.batch_sizes = tuple(batch_sizes)
        self._dim = model.output_dim
        check_provider(provider)
        try:
            graph = parse(model.content)
            if precision == "float16" and provider == CUDA_PROVIDER:
                graph = to_float16(graph)  # TensorRT converts by itself
            self._open(take_pixels(graph, model.spec).SerializeToString(), model.spec, engine_folder)
        except ArcFaceError:
            raise
        except Exception as error:  # the device's memory is full, a kernel is missing: whatever the runtime met
            raise ModelFailed(f"{provider} cannot run the model: {error}") from error

    def run(self, crops: Sequence[Crop]) -> Features:
        """One inference; see `Session.run`."""
        bound = self._bound[len(crops)]
        try:
            bound.pixels.update_inplace(np.stack(crops))
            self._ort.run_with_iobinding(bound.binding, bound.options)
            features = bound.features.numpy()
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(crops)}: {error}") from error
        return check_features(features, len(crops), self._dim)

    def _open(self, content: bytes, spec: InputSpec, engine_folder: Path | None) -> None:
        shape = (spec.height, spec.width, 3)
        if self.provider == TENSORRT_PROVIDER:
            options = tensorrt_options(shape, self.batch_sizes, self.precision, engine_folder)
            self._bind_all(content, options, shape, has_graphs=True)
            return
        try:
            self._bind_all(content, {"use_tf32": False, "enable_cuda_graph": True}, shape, has_graphs=True)
            # Recorded at the first run: not every model's operators allow it.
            self.run([np.zeros(shape, np.uint8)] * self.batch_sizes[0])
        except ModelFailed as error:
            _log.warning("The model runs without CUDA graphs, which is slower in small batches: %s", error)
            self._bind_all(content, {"use_tf32": False}, shape, has_graphs=False)

    def _bind_all(
        self, content: bytes, provider_options: Mapping[str, object], shape: tuple[int, ...], *, has_graphs: bool
    ) -> None:
        options = session_options(self.threads)
        # A node that falls to the CPU would be a GPU silently half used. And the provider stands alone in the list:
        # what TensorRT does not take must not run on CUDA in silence either.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._ort = open_onnx(content, options, [(self.provider, provider_options)])
        self._output = self._ort.get_outputs()[0].name
        self._bound = {size: self._bind(size, shape, has_graphs=has_graphs) for size in self.batch_sizes}

    def _bind(self, size: int, shape: tuple[int, ...], *, has_graphs: bool) -> _Bound:
        device = "cuda"
        pixels = ort.OrtValue.ortvalue_from_numpy(np.zeros((size, *shape), np.uint8), device, 0)
        features = ort.OrtValue.ortvalue_from_numpy(np.zeros((size, self._dim), np.float32), device, 0)
        binding = self._ort.io_binding()
        binding.bind_ortvalue_input(PIXELS, pixels)
        binding.bind_ortvalue_output(self._output, features)
        options = ort.RunOptions()
        if has_graphs:
            options.add_run_config_entry("gpu_graph_id", str(size))  # one recording for each batch size
        return _Bound(pixels, features, binding, options)


def tensorrt_options(
    shape: tuple[int, ...], batch_sizes: Sequence[int], precision: str, engine_folder: Path | None
) -> Mapping[str, object]:
    """TensorRT's options: one engine whose optimisation profile spans all batch sizes, kept between starts.

    Args:
        shape: Of one picture: (height, width, 3).
        batch_sizes: Sizes that batches will have, ascending.
        precision: float16 or float32.
        engine_folder: Where engines are kept; None: nowhere.
    """
    picture = "x".join(map(str, shape))
    largest = max(batch_sizes)
    options: dict[str, object] = {
        "trt_fp16_enable": precision == "float16",
        "trt_profile_min_shapes": f"{PIXELS}:{min(batch_sizes)}x{picture}",
        "trt_profile_opt_shapes": f"{PIXELS}:{largest}x{picture}",
        "trt_profile_max_shapes": f"{PIXELS}:{largest}x{picture}",
        "trt_cuda_graph_enable": True,
    }
    if engine_folder is not None:
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(engine_folder),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(engine_folder),
        }
    return options


def check_provider(provider: str) -> None:
    """Refuse a provider that cannot be loaded: asked for one, ONNX Runtime then takes the CPU and says nothing.

    Raises:
        RuntimeUnfit: A driver or library is missing.
    """
    # float32 means float32: left alone, TensorRT and cuBLAS round its inputs to 10 bits (TF32).
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    ort.preload_dlls()  # finds CUDA and cuDNN where pip's wheels put them
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "smallest", [value], [])
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    smallest = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    used = open_onnx(smallest.SerializeToString(), session_options(1), [provider]).get_providers()[0]
    if used != provider:
        raise RuntimeUnfit(
            f"{provider} could not be loaded (ONNX Runtime's log above names the missing library), so the model would"
            f" run on {used}. Check the GPU driver and that the container was started with access to the GPU"
            " (compose.cuda.yaml), or set device to cpu or auto."
        )
