"""ONNX Runtime on NVIDIA GPUs: CUDA and TensorRT, in float16 or float32.

    crops ─stack─▶ pixels (n, h, w, 3) uint8 ─▶ device buffer of that batch size ─▶ graph ─▶ device buffer ─▶ features

On CUDA each batch size has an `InferenceSession` and buffers of its own: with every shape known, no operator that
computes shapes is left for the CPU, and CUDA records one inference and replays it (a CUDA graph), because at small
batches launching kernels one by one takes longer than running them. TensorRT has one engine for all sizes. ONNX Runtime
keeps recordings by thread, and while CUDA records, no other thread of the process may copy or allocate. So a session
does everything on one thread of its own, and records everything before anything is served.
"""

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ArcFaceError, ModelFailed, RuntimeUnfit
from arcface_api.session.graphs import PIXELS, PIXELS_BATCH, take_pixels, to_float16
from arcface_api.session.onnx_cpu import ModelContent, check_features, open_onnx, session_options

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
GPU_PROVIDERS = frozenset({CUDA_PROVIDER, TENSORRT_PROVIDER})
OLDEST_DRIVER = 580
"""Of NVIDIA, for CUDA 13; source: CUDA Compatibility, table 1."""

_DEVICE = "cuda"
_log = logging.getLogger(__name__)


class _Bound:
    """An opened model with buffers for `size` crops of (height, width, 3) and as many rows of length `dim`."""

    def __init__(self, opened: ort.InferenceSession, size: int, shape: tuple[int, int, int], dim: int) -> None:
        self._ort = opened
        self._stacked = np.zeros((size, *shape), np.uint8)
        self._pixels = ort.OrtValue.ortvalue_from_numpy(self._stacked, _DEVICE, 0)
        self._features = ort.OrtValue.ortvalue_from_numpy(np.zeros((size, dim), np.float32), _DEVICE, 0)
        self._binding = opened.io_binding()
        self._binding.bind_ortvalue_input(PIXELS, self._pixels)
        self._binding.bind_ortvalue_output(opened.get_outputs()[0].name, self._features)

    def run(self, crops: Sequence[Crop]) -> Features:
        self._pixels.update_inplace(np.stack(crops, out=self._stacked))
        self._ort.run_with_iobinding(self._binding)
        return np.array(self._features.numpy())  # a copy: on some devices it is a view of the buffer


class OnnxGpuSession:
    """A model on ONNX Runtime's CUDA or TensorRT provider; see `Session`."""

    lanes = 1
    """One inference fills a card; more were not measured."""

    def __init__(
        self,
        model: ModelContent,
        provider: str,
        precision: str,
        threads: int,
        batch_sizes: Sequence[int],
        engine_folder: Path | None,
    ) -> None:
        """Load a model on the GPU in float16 or float32, and on CUDA run and record every batch size.

        In `engine_folder` TensorRT keeps its engines, which take minutes to build; None: nowhere.

        Raises:
            RuntimeUnfit: The provider cannot be loaded: a driver or library is missing.
            ModelFailed: The model cannot be loaded, or a part of it would run on the CPU.
        """
        self.provider, self.precision, self.threads = provider, precision, threads
        self.batch_sizes = tuple(batch_sizes)
        self._model = model
        self._shape = model.spec.height, model.spec.width, 3
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")  # ends when the session is garbage-collected
        self._bound = self._thread.submit(self._open, engine_folder).result()

    def run(self, crops: Sequence[Crop]) -> Features:
        """See `Session.run`."""
        try:
            features = self._thread.submit(self._bound[len(crops)].run, crops).result()
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(crops)}: {error}") from error
        return check_features(features, len(crops), self._model.output_dim)

    def _open(self, engine_folder: Path | None) -> Mapping[int, _Bound]:
        check_provider(self.provider)
        try:
            graph = onnx.load_from_string(self._model.content)
            if self.precision == "float16" and self.provider != TENSORRT_PROVIDER:  # which converts by itself
                graph = to_float16(graph)
            content = take_pixels(graph, self._model.spec).SerializeToString()
            if self.provider != TENSORRT_PROVIDER:
                return self._record_sizes(content)
            options = tensorrt_options(self._shape, self.batch_sizes, self.precision, engine_folder)
            # Alone in the list: what TensorRT does not take must not run on CUDA unnoticed.
            opened = open_onnx(content, gpu_session_options(self.threads), [(self.provider, options)])
            return {size: _Bound(opened, size, self._shape, self._model.output_dim) for size in self.batch_sizes}
        except ArcFaceError:
            raise
        except Exception as error:  # the device's memory is full, a kernel is missing, …
            raise ModelFailed(f"{self.provider} cannot run the model: {error}") from error

    def _record_sizes(self, content: bytes) -> Mapping[int, _Bound]:
        """Run every batch size once on CUDA: recorded, as long as the model's operators and the memory allow it."""
        options = cuda_options(self.precision) | {"enable_cuda_graph": True}
        bound = {}
        for size in self.batch_sizes:
            try:
                bound[size] = self._warmed(content, options, size)
            except Exception as error:
                if not options.pop("enable_cuda_graph", False):
                    raise
                _log.warning(
                    "Batches of %d and more run without CUDA graphs, so small ones are slower: %s", size, error
                )
                bound[size] = self._warmed(content, options, size)
        return bound

    def _warmed(self, content: bytes, provider_options: Mapping[str, object], size: int) -> _Bound:
        options = gpu_session_options(self.threads)
        options.add_free_dimension_override_by_name(PIXELS_BATCH, size)
        opened = open_onnx(content, options, [(self.provider, dict(provider_options))])
        bound = _Bound(opened, size, self._shape, self._model.output_dim)
        bound.run([np.zeros(self._shape, np.uint8)] * size)
        return bound


def gpu_session_options(threads: int) -> ort.SessionOptions:
    """Options that let no part of a model run on the CPU silently."""
    options = session_options(threads)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def cuda_options(precision: str) -> dict[str, object]:
    """CUDA's options for float16 or float32, but for the recording."""
    # Several sessions share the memory, and each knows what it needs: no arena may double in advance.
    options: dict[str, object] = {"arena_extend_strategy": "kSameAsRequested"}
    if precision == "float16":
        # Tensor cores need channels last; source: ONNX Runtime, pull requests 17200 and 22648.
        return options | {"prefer_nhwc": True}
    # Without TF32 float32 means float32. Never beside float16, whose convolutions it would keep off the tensor cores.
    return options | {"use_tf32": False}


def tensorrt_options(
    shape: tuple[int, ...], batch_sizes: Sequence[int], precision: str, engine_folder: Path | None
) -> dict[str, object]:
    """TensorRT's options: one engine whose optimisation profile spans all batch sizes, kept in `engine_folder`.

    Without CUDA graphs: ONNX Runtime's TensorRT provider keeps a single recording, of whichever batch size came first.
    """
    crop = "x".join(map(str, shape))
    options: dict[str, object] = {
        "trt_fp16_enable": precision == "float16",
        "trt_profile_min_shapes": f"{PIXELS}:{min(batch_sizes)}x{crop}",
        "trt_profile_opt_shapes": f"{PIXELS}:{max(batch_sizes)}x{crop}",
        "trt_profile_max_shapes": f"{PIXELS}:{max(batch_sizes)}x{crop}",
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
    """Raise RuntimeUnfit if a card, driver or library is missing, for which ONNX Runtime might silently use the CPU."""
    # float32 means float32: by default TensorRT and cuBLAS round its inputs to 10 bits (TF32).
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    ort.preload_dlls()  # finds CUDA and cuDNN where pip's wheels put them
    if provider == TENSORRT_PROVIDER:
        _warn_about_tensorrt()
        with suppress(ImportError):  # it may be installed without pip
            importlib.import_module("tensorrt_libs")  # loads pip's wheels, which preload_dlls leaves out
    smallest = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> smallest (float[1] x) => (float[1] y) { y = Neg(x) }'
    )
    try:
        used = open_onnx(smallest.SerializeToString(), session_options(1), [provider]).get_providers()[0]
        why = f"ONNX Runtime used {used} instead, and its log above names the missing library"
    except ModelFailed as error:  # the model itself cannot fail
        used, why = None, " ".join(str(error.__cause__).split()).rstrip(" .")
    if used != provider:
        needed = "CUDA 13 and cuDNN 9 (arcface-api[cuda] brings them)"
        if provider == TENSORRT_PROVIDER:
            needed += ", TensorRT 10 (`pip install 'tensorrt-cu13==10.*'`)"
        raise RuntimeUnfit(
            f"{provider} could not be loaded: {why}. It needs an NVIDIA GPU with a driver of version {OLDEST_DRIVER} or"
            f" newer (`nvidia-smi` shows it), {needed}, and in a container access to the GPU (compose.cuda.yaml). Or"
            " set device to cpu or auto."
        )


@cache
def _warn_about_tensorrt() -> None:
    """Once per process, not once per model."""
    _log.warning(
        "TensorRT is not verified on hardware: this project has not run it on a GPU. The self-test compares it with"
        " float32 on the CPU before it is used."
    )
