"""The landmark regressor: a plain residual network, 64x64 pixels in, 19 numbers out; 32 MFLOP, 0.48 M parameters.

Dense 3x3 convolutions with channels in multiples of 16, because they run at the processor's full speed where
depth-wise ones do not.
"""

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


POINTS = slice(0, 10)
"""Columns of a row: x, y of each point, in sides of the input."""
UNCERTAINTIES = slice(10, 15)
"""What each point is off by, expected, in eye distances; of the network itself: the logarithm."""
COVERED = slice(15, 17)
"""Shares of `covers.PARTS` that are hidden; of the network itself: logits."""
FACE = -1
"""The probability of a face; of the network itself: a logit."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Regressor(nn.Module):
    """(n, 3, 64, 64), RGB, -1 to 1 ──▶ (n, 18): `POINTS`, `UNCERTAINTIES`, `COVERED`, `FACE`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, 16, 2),
            _conv(16, 32, 2),
            _Residual(32),
            _conv(32, 64, 2),
            _Residual(64),
            _conv(64, 96, 2),
            _Residual(96),
            _conv(96, 64, kernel=1),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(128, 18)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, 0.5)
        nn.init.zeros_(self.head.bias[POINTS.stop :])

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        with torch.autocast("cpu", enabled=False):  # coordinates need more than bfloat16's eight bits
            return self.head(features.float())


class Exported(nn.Module):
    """The regressor as the service runs it, (n, 19): uncertainties and probabilities instead of logarithms and logits.

    The last but one number is the mean of the five uncertainties: what the mean error is expected to be.
    """

    def __init__(self, regressor: Regressor) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, x: Tensor) -> Tensor:
        row = self.regressor(x)
        uncertainties, probabilities = torch.exp(row[:, UNCERTAINTIES]), torch.sigmoid(row[:, UNCERTAINTIES.stop :])
        covered, face = probabilities[:, :2], probabilities[:, 2:]
        return torch.cat([row[:, POINTS], uncertainties, covered, uncertainties.mean(1, keepdim=True), face], 1)
