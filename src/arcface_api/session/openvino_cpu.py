"""OpenVINO on the CPU, in bfloat16 or float32: what makes a current server CPU worth its price.

    content ─▶ rewritten graph ─▶ compiled model ─▶ cache          at the first start
                                  cache ─▶ compiled model          from then on, without the graph

Native OpenVINO and not ONNX Runtime's OpenVINO plugin, because the plugin offers no device on CPUs of other makers than
Intel, where OpenVINO itself runs well (ADR 9).
"""

import logging
import sys
from collections.abc import Sequence
from importlib import metadata, util
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.arrays import Crop, Features
from arcface_api.errors import ModelFailed
from arcface_api.session.cache import Cache
from arcface_api.session.graphs import REWRITING_VERSION, parse, round_to_bfloat16, take_pixels
from arcface_api.session.model import ModelContent, check_features

if TYPE_CHECKING:
    import openvino

OPENVINO = "OpenVINO"

_log = logging.getLogger(__name__)

_HINTS = {"bfloat16": "bf16", "float32": "f32"}


def is_openvino_installed() -> bool:
    """Whether the package `openvino` is there; it is part of the extra `cpu` on x86-64."""
    try:
        openvino_version()
    except metadata.PackageNotFoundError:
        return False
    return util.find_spec("openvino") is not None


def openvino_version() -> str:
    """Version of the package `openvino`."""
    return metadata.version("openvino")


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
    ) -> None:
        """Compile a model, or take it compiled from the cache; nothing runs yet.

        Args:
            model: What to load.
            precision: bfloat16 or float32.
            threads: Threads of one inference, at least 1.
            batch_sizes: Sizes that batches will have.
            cache: Where the compiled model is kept.

        Raises:
            ModelFailed: OpenVINO cannot compile it, or would compute in another precision.
        """
        self.precision = precision
        self.threads = threads
        self.batch_sizes = tuple(batch_sizes)
        self._dim = model.output_dim
        config = {
            # Never left to OpenVINO, which would choose bfloat16 in silence.
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned threads of two workers, or of two containers, would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._cache = cache
        self._stored: NDArray[np.uint8] | None = None
        """The cache's entry, mapped into memory, of which the compiled model is made."""
        self._key = (
            OPENVINO, openvino_version(), REWRITING_VERSION, model.sha256, repr(model.spec), sorted(config.items())
        )  # fmt: skip
        try:
            core = _openvino().Core()
            self._compiled = self._from_cache(core, config) or _compile(core, model, config)
            used = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            self._request = self._compiled.create_infer_request()
        except Exception as error:  # RuntimeError for whatever OpenVINO met, ImportError where a library is missing
            raise ModelFailed(f"OpenVINO cannot compile the model: {error}") from error
        if used != _HINTS[precision]:
            raise ModelFailed(f"OpenVINO computes in {used} where {precision} was asked for.")

    def run(self, crops: Sequence[Crop]) -> Features:
        """One inference; see `Session.run`."""
        pixels = np.stack(crops)
        try:
            features = self._request.infer([pixels], share_inputs=True)[0]
        except Exception as error:  # OpenVINO raises RuntimeError for whatever it met
            raise ModelFailed(f"OpenVINO failed on a batch of {len(pixels)}: {error}") from error
        return check_features(features, len(pixels), self._dim)

    def keep(self) -> bool:
        """Write the compiled model to the cache, for the next start, if it did not come from there.

        Returns:
            Whether it was written now.
        """
        if self._stored is not None:
            return False
        exported = BytesIO()
        try:
            self._compiled.export_model(exported)
        except (RuntimeError, MemoryError) as error:  # it runs all the same
            _log.warning("The compiled model is not kept, and the next start will take longer: %s", error)
            return False
        return self._cache.write(exported.getbuffer(), *self._key)

    def _from_cache(self, core: "openvino.Core", config: dict[str, Any]) -> "openvino.CompiledModel | None":
        stored = self._cache.read(*self._key)
        if stored is None:
            return None
        try:
            compiled = core.import_model(_openvino().Tensor(stored, shared_memory=True), "CPU", config)
        except RuntimeError:  # whole, but not what this OpenVINO wants
            self._cache.drop(*self._key)
            return None
        self._stored = stored
        return compiled


def _openvino() -> Any:
    """The package, imported without its telemetry.

    `import openvino` reports itself to an analytics service where `openvino_telemetry` is installed. What sees
    biometric data sends nothing to anybody; without that package OpenVINO takes a stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    import openvino  # noqa: PLC0415  # half a second that only those pay who use it

    return openvino


def _compile(core: "openvino.Core", model: ModelContent, config: dict[str, Any]) -> "openvino.CompiledModel":
    is_bfloat16 = config["INFERENCE_PRECISION_HINT"] == _HINTS["bfloat16"]
    graph = core.read_model(_rewritten(model, is_bfloat16=is_bfloat16))
    if is_bfloat16:
        _keep_weights_small(graph)
    return core.compile_model(graph, "CPU", config)


def _rewritten(model: ModelContent, *, is_bfloat16: bool) -> bytes:
    """The graph that is compiled, as a file; what it was parsed into is free again while that goes on."""
    graph = take_pixels(parse(model.content), model.spec)
    content: bytes = (round_to_bfloat16(graph) if is_bfloat16 else graph).SerializeToString()
    return content


def _keep_weights_small(graph: "openvino.Model") -> None:
    """Keep the graph's constants in float16, which holds rounded weights exactly: 150 MB less for an IResNet100.

    OpenVINO keeps float32 weights beside the bfloat16 ones that it computes with. Where this fails the model is not run
    without it: float16 also rounds what stayed in float32 (biases, slopes), so the same picture would have another
    vector. In memory, because the way through OpenVINO's file format needs a folder, which may be missing or full.
    """
    from openvino._offline_transformations import compress_model_transformation  # noqa: PLC0415  # as in _openvino

    compress_model_transformation(graph)
