"""The network: a small residual CNN beside hand-made statistics of light, colour, edges and borders.

On a few thousand photos a CNN from random weights learns slowly what simple statistics already say (a
dark photo, a busy border), so the network is given them; the CNN adds what they miss (shape, wrinkles).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEIGHT, WIDTH = 256, 192
"""Input size in pixels; photos are stretched to it (most are 3:4 upright)."""

GRID_ROWS, GRID_COLUMNS = 8, 6
_LUMA = (0.299, 0.587, 0.114)
_BINS = 16


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            self.skip = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def statistics(x: Tensor) -> Tensor:
    """Return hand-made statistics of photos `x` [N, 3, H, W] in 0..1, as [N, K].

    Per cell of an 8 x 6 grid: mean and deviation of luma, saturation, two colour differences, and edge and
    detail energy at three scales; over the photo: their mean and deviation, and soft histograms of luma
    and saturation, of the whole photo and of its upper and lower borders.
    """
    red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    saturation = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    maps = [torch.cat([luma, saturation, blue - luma, red - luma], 1)]
    scaled = luma
    for _ in range(3):
        across = F.pad((scaled[..., 1:] - scaled[..., :-1]).abs(), (0, 1))
        down = F.pad((scaled[..., 1:, :] - scaled[..., :-1, :]).abs(), (0, 0, 0, 1))
        detail = (scaled - F.avg_pool2d(scaled, 3, 1, 1)).abs()
        maps.append(torch.cat([across + down, detail], 1))
        scaled = F.avg_pool2d(scaled, 2)
    features = []
    for m, scale in zip(maps, (1, 1, 2, 4), strict=True):
        cell = (HEIGHT // GRID_ROWS // scale, WIDTH // GRID_COLUMNS // scale)
        mean = F.avg_pool2d(m, cell)
        deviation = (F.avg_pool2d(m * m, cell) - mean * mean).clamp_min(0).add(1e-6).sqrt()
        features += [mean.flatten(1), deviation.flatten(1), mean.mean((2, 3)), mean.std((2, 3))]
    centres = torch.linspace(0, 1, _BINS, device=x.device).view(1, _BINS, 1, 1)
    for m in (luma, saturation):
        bins = torch.exp(-(((F.avg_pool2d(m, 4) - centres) * _BINS) ** 2))
        border = torch.cat([bins[..., :4, :], bins[..., -4:, :]], 2)
        features += [bins.mean((2, 3)), border.mean((2, 3))]
    return torch.cat(features, 1)


class Network(nn.Module):
    """Photos [N, 3, 256, 192], float 0..1 -> logits [N, 5 + 6 + 20]: classes, aspects, issues."""

    def __init__(self, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, width, 4, 4, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
            ResidualBlock(4 * width, 6 * width, 2),
        )
        with torch.no_grad():
            count = statistics(torch.zeros(1, 3, HEIGHT, WIDTH)).shape[1]
        self.stats = nn.Sequential(
            nn.BatchNorm1d(count), nn.Dropout(dropout), nn.Linear(count, 128), nn.ReLU(inplace=True)
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(12 * width + 128, 5 + 6 + 20))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.cnn(x * 4 - 2)
        parts = [maps.mean((2, 3)), maps.amax((2, 3)), self.stats(statistics(x))]
        return self.head(torch.cat(parts, 1))


def outputs(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return score [N, 1], class_probs [N, 5], aspects [N, 6], issues [N, 20], all in 0..1.

    score = (E[class] + mean(aspect, 1..5) / 5 - 1.2) / 4.8: the rubric's finer order, scaled to 0..1.
    """
    class_probs = logits[:, :5].softmax(1)
    aspects = logits[:, 5:11].sigmoid()
    expected = (class_probs * torch.arange(1, 6, device=logits.device)).sum(1, keepdim=True)
    score = (expected + (1 + 4 * aspects).mean(1, keepdim=True) / 5 - 1.2) / 4.8
    return score, class_probs, aspects, logits[:, 11:].sigmoid()


class Deployed(nn.Module):
    """What is exported: photos [N, 256, 192, 3] uint8 RGB -> the four outputs, averaged over `networks`."""

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = photos.permute(0, 3, 1, 2).to(torch.float32) / 255
        return outputs(torch.stack([network(x) for network in self.networks]).mean(0))
