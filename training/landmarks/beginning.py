"""Begin training with the weights of an exported regressor instead of random ones: a quarter of the steps may do.

The file has its batch normalisation folded into the convolutions. It is put in again, by what a batch of views shows:
each layer first normalises as that batch says, and then undoes it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from training.landmarks.network import COVERED, FACE, POINTS, UNCERTAINTIES, Regressor

_OLDER_ROW = 12
"""Length of a row with one uncertainty for all points, and no hidden parts."""


def begin_with(network: Regressor, file: Path, views: Tensor) -> None:
    """Give a network the weights of a file: then, in `eval`, it returns what the file does.

    Of an older file's rows of twelve, all points get the one uncertainty, and hidden parts begin as hardly ever hidden.

    Args:
        network: With random weights.
        file: As `export` writes it.
        views: (n, 3, 64, 64), -1 to 1, of many kinds.

    Raises:
        ValueError: The file is that of another network.
    """
    weights = list(_weights(onnx.load(file).graph))
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kernels = [weight for weight, _ in weights]
    if [k.shape for k in kernels[:-1]] != [tuple(layer.weight.shape) for layer in layers[:-1]]:
        raise ValueError(f"{file} holds another network than training/landmarks/network.py describes.")
    kernels[-1], last_bias = _wider(*weights[-1])
    with torch.no_grad():
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.weight.copy_(torch.from_numpy(kernel))
        layers[-2].bias.copy_(torch.from_numpy(weights[-2][1]))
        layers[-1].bias.copy_(torch.from_numpy(last_bias))
        hooks = [
            norm.register_forward_pre_hook(_undoing(torch.from_numpy(bias)))
            for norm, (_, bias) in zip(norms, weights, strict=False)
        ]
        network.eval()
        network(views)
    for hook in hooks:
        hook.remove()


def _undoing(bias: Tensor) -> Callable[[nn.BatchNorm2d, tuple[Tensor]], None]:
    """What sets a normalisation to the batch that comes in, and to undoing it but for the folded bias."""

    def set_by(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(bias + mean)

    return set_by


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias, float32, of each convolution and product, in the order in which they are computed."""
    stored = {each.name: numpy_helper.to_array(each).astype(np.float32) for each in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            yield stored[node.input[1]], stored[node.input[2]]


def _wider(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last product's weight and bias, for the network's own row."""
    if len(bias) != _OLDER_ROW:
        return weight, bias
    rows = np.zeros((18, weight.shape[1] + 1), np.float32)
    old = np.column_stack([weight, bias])
    rows[POINTS], rows[UNCERTAINTIES], rows[FACE] = old[:10], old[10], old[11]
    rows[COVERED, -1] = -2  # mostly, nothing is hidden
    return rows[:, :-1].copy(), rows[:, -1].copy()
