"""The landmark regressor: a plain residual network, 64x64 pixels in, twelve numbers out; 32 MFLOP, 0.48 M parameters.

Dense 3x3 convolutions with channels in multiples of 16, because they run at the processor's full speed where
depth-wise ones do not.
"""

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Regressor(nn.Module):
    """(n, 3, 64, 64), RGB, -1 to 1 ──▶ (n, 12): points in sides of the input, log uncertainty, face logit."""

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
        self.head = nn.Linear(128, 12)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, 0.5)
        nn.init.zeros_(self.head.bias[10:])

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        with torch.autocast("cpu", enabled=False):  # coordinates need more than bfloat16's eight bits
            return self.head(features.float())


class Exported(nn.Module):
    """The regressor as the service runs it: its last two numbers are the uncertainty and a probability."""

    def __init__(self, regressor: Regressor) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, x: Tensor) -> Tensor:
        row = self.regressor(x)
        return torch.cat([row[:, :10], torch.exp(row[:, 10:11]), torch.sigmoid(row[:, 11:])], 1)
