"""OpenVINO on the CPU, in bfloat16 or float32; compiled at the first start, read from the cache at the next ones.

It is used directly and not as ONNX Runtime's plugin, which offers no device on AMD's CPUs (ADR 9).
"""

import logging
import sys
from collections.abc import Sequence
from importlib import metadata, util
from io import BytesIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed
from arcface_api.session.cache import Cache, release
from arcface_api.session.graphs import REWRITING_VERSION, round_to_bfloat16, take_pixels
from arcface_api.session.onnx_cpu import ModelContent, check_features

if TYPE_CHECKING:
    import openvino

OPENVINO = "OpenVINO"

_HINTS = {"bfloat16": "bf16", "float32": "f32"}

_log = logging.getLogger(__name__)


def is_openvino_installed() -> bool:
    """Whether the package `openvino` is there; it is part of the extra `cpu` on x86-64."""
    return any(metadata.distributions(name="openvino")) and util.find_spec("openvino") is not None


class OpenVinoSession:
    """A model on OpenVINO's CPU device; see `Session`."""

    provider = OPENVINO

    def __init__(
        self,
        model: ModelContent,
        precision: str,
        threads: int,
        batch_sizes: Sequence[int],
        cache: Cache,
        *,
        lanes: int = 1,
    ) -> None:
        """Compile a model in bfloat16 or float32, or read the compiled one from the cache; nothing runs yet.

        The cache entry is the same for any number of lanes, so that they compute the same.

        Raises:
            ModelFailed: OpenVINO cannot compile it, or would compute in another precision.
        """
        self.precision, self.threads, self.lanes = precision, threads, lanes
        self.batch_sizes = tuple(batch_sizes)
        self._dim = model.output_dim
        config = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],  # by default OpenVINO chooses bfloat16 silently
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # two workers, or two containers, would be pinned to the same cores
        }
        self._cache = cache
        self._stored: NDArray[np.uint8] | None = None
        """The cache entry that the compiled model was read from, mapped into memory."""
        version = metadata.version("openvino")
        self._key = (OPENVINO, version, REWRITING_VERSION, model.sha256, repr(model.spec), sorted(config.items()))
        config["NUM_STREAMS"] = lanes
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        """Of the lanes that are free."""
        try:
            core = _openvino().Core()
            compiled = self._from_cache(core, config) or _compile(core, model, config)
            used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            for _ in range(lanes):
                self._requests.put(compiled.create_infer_request())
        except Exception as error:  # RuntimeError for any failure in OpenVINO, ImportError where a library is missing
            raise ModelFailed(f"OpenVINO cannot compile the model: {error}") from error
        if used != _HINTS[precision]:
            raise ModelFailed(f"OpenVINO computes in {used} where {precision} was asked for.")
        self._compiled = compiled

    def run(self, crops: Sequence[Crop]) -> Features:
        """See `Session.run`."""
        pixels = np.stack(crops)
        request = self._requests.get()
        try:
            features = request.infer([pixels], share_inputs=True)[0]
        except Exception as error:  # OpenVINO raises RuntimeError for any failure
            raise ModelFailed(f"OpenVINO failed on a batch of {len(pixels)}: {error}") from error
        finally:
            self._requests.put(request)
        return check_features(features, len(pixels), self._dim)

    def keep(self) -> bool:
        """Write the compiled model to the cache unless it came from there; returns whether it was written."""
        if self._stored is not None:
            return False
        exported = BytesIO()
        try:
            self._compiled.export_model(exported)
        except (RuntimeError, MemoryError) as error:  # the session runs all the same
            _log.warning("The compiled model cannot be kept, so the next start takes longer: %s", error)
            return False
        return self._cache.write(exported.getbuffer(), *self._key)

    def release_stored(self) -> None:
        """Give back the memory of the cache entry, once every lane has run: OpenVINO has packed weights of its own."""
        if self._stored is not None:
            release(self._stored)

    def _from_cache(self, core: "openvino.Core", config: dict[str, Any]) -> "openvino.CompiledModel | None":
        stored = self._cache.read(*self._key)
        if stored is None:
            return None
        try:
            compiled = core.import_model(_openvino().Tensor(stored, shared_memory=True), "CPU", config)
        except RuntimeError:  # undamaged, but not for this OpenVINO; `keep` overwrites it
            return None
        self._stored = stored
        return compiled


def _openvino() -> Any:
    """The package, imported without its telemetry: it reports `import openvino` itself to an analytics service.

    A service that sees biometric data reports to nobody. Without `openvino_telemetry`, OpenVINO uses a stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    import openvino  # noqa: PLC0415  # takes half a second, which only its users pay

    return openvino


def _compile(core: "openvino.Core", model: ModelContent, config: dict[str, Any]) -> "openvino.CompiledModel":
    """Compile; for bfloat16, with the graph's constants in float16: 150 MB less for an IResNet100.

    OpenVINO keeps the graph's weights beside the bfloat16 ones that it computes with; float16 holds rounded ones
    exactly. If that fails, the session fails too: float16 also rounds what stayed in float32 (biases, slopes), so
    without it a picture would have another vector.
    """
    parsed = take_pixels(onnx.load_from_string(model.content), model.spec)
    is_bfloat16 = config["INFERENCE_PRECISION_HINT"] == _HINTS["bfloat16"]
    if is_bfloat16:
        round_to_bfloat16(parsed)
    content = parsed.SerializeToString()
    del parsed  # hundreds of MB, as is the content: not needed while OpenVINO compiles
    graph = core.read_model(content)
    del content
    if is_bfloat16:
        from openvino._offline_transformations import compress_model_transformation  # noqa: PLC0415  # as in _openvino

        compress_model_transformation(graph)
    return core.compile_model(graph, "CPU", config)
