"""Post-training quantisation of a recogniser to int8, by the recipes that `precision.py` compares.

Both tools see real crops and choose the range of each activation from what passes through it. The ranges of weights are
per output channel.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from arcface_api.arrays import Tensor

os.environ["NNCF_CI"] = "1"  # before the import: the one variable by which it does not report to its makers
import nncf

BATCH = 8
PER_CHANNEL_OPSET = 13
"""QuantizeLinear has its `axis`, which ranges by channel need, since this version of ONNX's operators."""
HEAVY = ("Convolution", "GroupConvolution", "MatMul")
INNER = (0.2, 0.8)
"""Which of the convolutions and matrix products, in the graph's order, `nncf_inner` quantises."""
PERCENTILE = 99.999
"""Share of an activation's values that shall fit its range; w600k_mbf came out worse with 99.99 and with entropy."""


def nncf_basic(path: Path, calibration: Tensor) -> openvino.Model:
    """NNCF's own choice: every layer, mixed preset (weights symmetric, activations not)."""
    return _nncf(path, calibration)


def nncf_inner(path: Path, calibration: Tensor) -> openvino.Model:
    """The layers that suffer least: not the first and last fifth, not the residual sums; full bias correction.

    Read off what NNCF's accuracy-aware mode gave back to float32 when asked to keep a cosine of 0.99. That mode itself
    takes many minutes a model, and what it keeps fits the crops it is shown: others fell below 0.99 again.
    """
    names = [op.get_friendly_name() for op in _read(path).get_ordered_ops() if op.get_type_name() in HEAVY]
    first, last = (int(share * len(names)) for share in INNER)
    outer = nncf.IgnoredScope(names=names[:first] + names[last:], types=["Add"], validate=False)
    return _nncf(path, calibration, ignored_scope=outer, fast_bias_correction=False)


def ort_qdq(path: Path, calibration: Tensor) -> bytes:
    """ONNX Runtime's static quantisation: convolutions only, ranges by percentile; an ONNX file's bytes.

    Matrix products stay out: one of edgeface_xs's activations is constant, which the percentile's histogram refuses,
    and with ranges by entropy or extremes they brought that model's lowest cosine down to 0.83 and less.
    """
    model = onnx.load(path)
    if max(entry.version for entry in model.opset_import) < PER_CHANNEL_OPSET:
        model = onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _Reader(model.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        return quantised.read_bytes()


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Hands out the calibration crops in batches."""

    def __init__(self, name: str, calibration: Tensor) -> None:
        self._batches: Iterator[dict[str, Tensor]] = (
            {name: calibration[start : start + BATCH]} for start in range(0, len(calibration), BATCH)
        )

    def get_next(self) -> dict[str, Tensor] | None:
        return next(self._batches, None)


def _nncf(path: Path, calibration: Tensor, **options: Any) -> openvino.Model:
    model = _read(path)
    nncf.set_log_level("ERROR")
    has_attention = any(op.get_type_name() == "Softmax" for op in model.get_ops())
    return nncf.quantize(
        model,
        nncf.Dataset(np.split(calibration, len(calibration))),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        subset_size=len(calibration),
        **options,
    )


def _read(path: Path) -> openvino.Model:
    return openvino.Core().read_model(path)
