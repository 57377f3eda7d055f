"""ONNX Runtime on NVIDIA GPUs: CUDA and TensorRT, in float16 or float32.

    crops ─stack─▶ pixels (n, h, w, 3) uint8 ─▶ device buffer of that batch size ─▶ graph ─▶ device buffer ─▶ features

Pixels travel as bytes and are normalised on the device. On CUDA each batch size has an `InferenceSession` and buffers
of its own: there every shape is known beforehand, so no operator that computes shapes is left for the CPU, cuDNN's
plans never change, and CUDA records the work of one inference and replays it (a CUDA graph): at small batches launching
the kernels one by one takes longer than running them. TensorRT has one engine for all sizes.

ONNX Runtime keeps recordings by thread, and while CUDA records, no other thread of the process may copy or allocate. So
all of a session happens on one thread of its own, and everything is recorded before anything is served.

Longer than most modules: the two providers' options and refusals stand beside the one session that both share.
"""

import importlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ArcFaceError, ModelFailed, RuntimeUnfit
from arcface_api.session.graphs import PIXELS, PIXELS_BATCH, parse, take_pixels, to_float16
from arcface_api.session.model import ModelContent, check_features
from arcface_api.session.onnx_cpu import open_onnx, session_options

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
GPU_PROVIDERS = frozenset({CUDA_PROVIDER, TENSORRT_PROVIDER})
OLDEST_DRIVER = 580
"""Of NVIDIA, for CUDA 13; source: CUDA Compatibility, table 1."""

_DEVICE = "cuda"
_Made = TypeVar("_Made")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Bound:
    """What one batch size runs with."""

    ort: ort.InferenceSession
    stacked: NDArray[np.uint8]
    """(n, height, width, 3) on the host."""
    pixels: Any
    """OrtValue, the same on the device."""
    features: Any
    """OrtValue (n, dim) float32 on the device."""
    binding: Any

    def run(self, crops: Sequence[Crop]) -> Any:
        """Features of as many crops as this is for."""
        self.pixels.update_inplace(np.stack(crops, out=self.stacked))
        self.ort.run_with_iobinding(self.binding)
        return np.array(self.features.numpy())  # whether that is a view depends on the device


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
        """Load a model on the GPU, and on CUDA run and record every batch size.

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
        self._model = model
        # It ends by itself when the session is garbage.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu")
        self._bound = self._on_thread(lambda: self._open(engine_folder))

    def run(self, crops: Sequence[Crop]) -> Features:
        """One inference; see `Session.run`."""
        bound = self._bound[len(crops)]
        try:
            features = self._on_thread(lambda: bound.run(crops))
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise ModelFailed(f"ONNX Runtime failed on a batch of {len(crops)}: {error}") from error
        return check_features(features, len(crops), self._model.output_dim)

    def _on_thread(self, work: Callable[[], _Made]) -> _Made:
        return self._thread.submit(work).result()

    def _open(self, engine_folder: Path | None) -> Mapping[int, _Bound]:
        check_provider(self.provider)
        try:
            graph = parse(self._model.content)
            if self.precision == "float16" and self.provider != TENSORRT_PROVIDER:
                graph = to_float16(graph)  # TensorRT converts by itself
            content = take_pixels(graph, self._model.spec).SerializeToString()
            if self.provider == TENSORRT_PROVIDER:
                options = tensorrt_options(self._picture, self.batch_sizes, self.precision, engine_folder)
                opened = self._open_onnx(content, options)
                return {size: self._bind(opened, size) for size in self.batch_sizes}
            return self._open_sizes(content)
        except ArcFaceError:
            raise
        except Exception as error:  # the device's memory is full, a kernel is missing: whatever the runtime met
            raise ModelFailed(f"{self.provider} cannot run the model: {error}") from error

    def _open_sizes(self, content: bytes) -> Mapping[int, _Bound]:
        """Every batch size on CUDA, run once: recorded, as long as the model's operators and the memory allow it."""
        options = cuda_options(self.precision) | {"enable_cuda_graph": True}
        opened = {}
        for size in self.batch_sizes:
            try:
                opened[size] = self._open_size(content, options, size)
            except Exception as error:
                if not options.pop("enable_cuda_graph", False):
                    raise
                _log.warning(
                    "Batches from %d on run without CUDA graphs, which is slower in small ones: %s", size, error
                )
                opened[size] = self._open_size(content, options, size)
        return opened

    def _open_size(self, content: bytes, options: Mapping[str, object], size: int) -> _Bound:
        bound = self._bind(self._open_onnx(content, options, size), size)
        bound.run([np.zeros(self._picture, np.uint8)] * size)
        return bound

    def _open_onnx(
        self, content: bytes, provider_options: Mapping[str, object], size: int | None = None
    ) -> ort.InferenceSession:
        """For one batch size, or for any."""
        options = gpu_session_options(self.threads)
        if size is not None:
            options.add_free_dimension_override_by_name(PIXELS_BATCH, size)
        return open_onnx(content, options, [(self.provider, dict(provider_options))])

    def _bind(self, opened: ort.InferenceSession, size: int) -> _Bound:
        stacked = np.zeros((size, *self._picture), np.uint8)
        pixels = ort.OrtValue.ortvalue_from_numpy(stacked, _DEVICE, 0)
        empty = np.zeros((size, self._model.output_dim), np.float32)
        features = ort.OrtValue.ortvalue_from_numpy(empty, _DEVICE, 0)
        binding = opened.io_binding()
        binding.bind_ortvalue_input(PIXELS, pixels)
        binding.bind_ortvalue_output(opened.get_outputs()[0].name, features)
        return _Bound(opened, stacked, pixels, features, binding)

    @property
    def _picture(self) -> tuple[int, int, int]:
        return self._model.spec.height, self._model.spec.width, 3


def gpu_session_options(threads: int) -> ort.SessionOptions:
    """What every session on a GPU is opened with."""
    options = session_options(threads)
    # A node that falls to the CPU would be a GPU silently half used. And the provider stands alone in the list: what
    # TensorRT does not take must not run on CUDA in silence either.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def cuda_options(precision: str) -> dict[str, object]:
    """CUDA's options, but for the graph.

    Args:
        precision: float16 or float32.
    """
    # Several sessions share the memory, and each knows what it needs: no arena shall double in advance.
    options: dict[str, object] = {"arena_extend_strategy": "kSameAsRequested"}
    if precision == "float16":
        # Tensor cores want channels last; source: ONNX Runtime, pull requests 17200 and 22648.
        return options | {"prefer_nhwc": True}
    # float32 means float32. Never beside float16: ONNX Runtime then keeps its convolutions off the tensor cores, too.
    return options | {"use_tf32": False}


def tensorrt_options(
    shape: tuple[int, ...], batch_sizes: Sequence[int], precision: str, engine_folder: Path | None
) -> Mapping[str, object]:
    """TensorRT's options: one engine whose optimisation profile spans all batch sizes, kept between starts.

    Without CUDA graphs: ONNX Runtime's TensorRT provider keeps a single recording, of whatever batch size came first.

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
    """Refuse a provider that cannot be loaded: asked for one, ONNX Runtime may take the CPU and say nothing.

    Raises:
        RuntimeUnfit: A card, driver or library is missing.
    """
    # float32 means float32: left alone, TensorRT and cuBLAS round its inputs to 10 bits (TF32).
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    ort.preload_dlls()  # finds CUDA and cuDNN where pip's wheels put them
    if provider == TENSORRT_PROVIDER:
        with suppress(ImportError):  # it may be installed without pip
            importlib.import_module("tensorrt_libs")  # loads what pip's wheels brought, as preload_dlls does not
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "smallest", [value], [])
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    smallest = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        used = open_onnx(smallest.SerializeToString(), session_options(1), [provider]).get_providers()[0]
        why = f"ONNX Runtime took {used} instead, and its log above names the missing library"
    except ModelFailed as error:  # of a model that cannot fail
        used, why = None, " ".join(str(error.__cause__).split()).rstrip(" .")
    if used != provider:
        needed = "CUDA 13 and cuDNN 9 (arcface-api[cuda] brings them)"
        if provider == TENSORRT_PROVIDER:
            needed += ", TensorRT 10 (`pip install 'tensorrt-cu13==10.*'`)"
        raise RuntimeUnfit(
            f"{provider} could not be loaded: {why}. It needs an NVIDIA GPU with a driver of version {OLDEST_DRIVER} or"
            f" newer (`nvidia-smi` tells it), {needed}, and in a container access to the GPU (compose.cuda.yaml). Or"
            " set device to cpu or auto."
        )
