"""An IResNet100 of glintr100.onnx's architecture with random weights: right speed, meaningless vectors.

    python -m benchmarks.lib.iresnet /tmp/iresnet100.onnx

antelopev2's own recogniser may not be redistributed, but speed depends on the architecture alone. Its source: Deng et
al., "ArcFace", arXiv 1801.07698, as InsightFace implements it (`recognition/arcface_torch/backbones/iresnet.py`). As in
exported files, a batch normalisation that follows a convolution is folded into it; the one that precedes stays.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

UNITS = (3, 13, 30, 3)
"""Residual units in each of the four stages of the 100-layer network."""
CHANNELS = (64, 128, 256, 512)
DIM = 512


class _Graph:
    """Nodes and weights as they are added, each output named after its node."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, values: NDArray[np.float64]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def normal(self, shape: tuple[int, ...], deviation: float) -> str:
        return self.weight(self._random.standard_normal(shape, np.float32) * deviation)

    def uniform(self, low: float, high: float, *shape: int) -> str:
        return self.weight(self._random.uniform(low, high, shape))

    def convolution(self, x: str, cin: int, cout: int, size: int, stride: int) -> str:
        weight = self.normal((cout, cin, size, size), (cin * size * size) ** -0.5)
        bias = self.uniform(-0.1, 0.1, cout)
        return self.add("Conv", [x, weight, bias], kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)

    def normalisation(self, x: str, channels: int) -> str:
        scale, shift = self.uniform(0.8, 1.2, channels), self.uniform(-0.1, 0.1, channels)
        mean, variance = self.uniform(-0.1, 0.1, channels), self.uniform(0.8, 1.2, channels)
        return self.add("BatchNormalization", [x, scale, shift, mean, variance])

    def prelu(self, x: str, channels: int) -> str:
        return self.add("PRelu", [x, self.uniform(0.1, 0.3, channels, 1, 1)])

    def unit(self, x: str, cin: int, cout: int, stride: int) -> str:
        y = self.normalisation(x, cin)
        y = self.prelu(self.convolution(y, cin, cout, 3, 1), cout)
        y = self.convolution(y, cout, cout, 3, stride)
        if stride != 1:
            x = self.convolution(x, cin, cout, 1, stride)
        return self.add("Add", [y, x])


def build(seed: int = 0) -> onnx.ModelProto:
    """The network: (n, 3, 112, 112) float32 → (n, 512) float32; the same seed gives the same weights."""
    graph = _Graph(seed)
    x = graph.prelu(graph.convolution("input", 3, CHANNELS[0], 3, 1), CHANNELS[0])
    channels = CHANNELS[0]
    for stage, units in zip(CHANNELS, UNITS, strict=True):
        for unit in range(units):
            x = graph.unit(x, channels, stage, 2 if unit == 0 else 1)
            channels = stage
    x = graph.add("Flatten", [graph.normalisation(x, channels)])
    cells = channels * 7 * 7
    graph.add("Gemm", [x, graph.normal((cells, DIM), cells**-0.5), graph.uniform(-0.1, 0.1, DIM)])
    graph.nodes[-1].output[0] = "embedding"
    onnx_graph = helper.make_graph(
        graph.nodes,
        "iresnet100_random",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        graph.weights,
    )
    return helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path, seed: int = 0) -> None:
    """Write the network; under its name it is either whole or not there."""
    part = path.with_suffix(".part")
    onnx.save(build(seed), part)
    part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.path, arguments.seed)
