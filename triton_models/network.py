"""The network: a backbone's maps and hand-made statistics, and a head on both.

Two heads. `LinearHead` is trained with the backbone by gradient descent. `KernelHead` is fitted on a backbone that
stays as it is: with a few thousand labels from a few hundred sellers, weights that are moved learn the sellers' rooms,
and order photos of new sellers worse (README, "The model").
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_models.backbone import Backbone
from triton_models.photos import HEIGHT, WIDTH
from triton_models.statistics import statistics

LOGITS = 5 + 6 + 20 + 1
"""Classes, aspects, issues, and the fine score."""
_CLIP = 5.0


def outputs(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return score [N, 1], class_probs [N, 5], aspects [N, 6], issues [N, 20] of logits [N, 32]; all in 0..1.

    The score is learned from the rubric's finer order: (class + mean aspect / 5 - 1.2) / 4.8.
    """
    return logits[:, 31:].clamp(0, 1), logits[:, :5].softmax(1), logits[:, 5:11].sigmoid(), logits[:, 11:31].sigmoid()


class LinearHead(nn.Module):
    """Deep features [N, D] and statistics [N, K] -> logits [N, 32]."""

    def __init__(self, deep: int, stats: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            nn.BatchNorm1d(deep), nn.Dropout(dropout), nn.Linear(deep, 128), nn.ReLU(inplace=True)
        )
        self.stats = nn.Sequential(
            nn.BatchNorm1d(stats), nn.Dropout(dropout), nn.Linear(stats, 128), nn.ReLU(inplace=True)
        )
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(256, LOGITS))
        nn.init.constant_(cast(nn.Linear, self.out[1]).bias[31:], 0.5)

    def forward(self, deep: Tensor, stats: Tensor) -> Tensor:
        return cast(Tensor, self.out(torch.cat([self.deep(deep), self.stats(stats)], 1)))


class Standardise(nn.Module):
    """Signed square root, mean 0 and deviation 1 over the training photos, clipped at 5 deviations."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit(self, x: Tensor) -> None:
        root = x.sign() * x.abs().sqrt()
        self.mean.copy_(root.mean(0))
        self.scale.copy_(1 / root.std(0).clamp_min(1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.sign() * x.abs().sqrt() - self.mean) * self.scale).clamp(-_CLIP, _CLIP)


class KernelHead(nn.Module):
    """A Gaussian kernel machine: deep features [N, D] and statistics [N, K] -> logits [N, 32].

    The features of a photo are its kernel values with `landmarks` training photos, k(a, b) = exp(-g (|a - b|^2 of the
    deep features / their number + the same of the statistics)), the deep ones after projection on their first
    principal components; the logits are linear in them (Nystroem's approximation, Williams and Seeger 2000).
    """

    projection: Tensor
    landmarks: Tensor
    squares: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, deep: int, stats: int, landmarks: int = 1536, components: int = 256, gamma: float = 0.1) -> None:
        super().__init__()
        self.gamma, self.sizes = gamma, (deep, stats)
        self.deep, self.stats = Standardise(deep), Standardise(stats)
        components = min(components, deep, landmarks)
        self.register_buffer("projection", torch.zeros(deep, components))
        self.register_buffer("landmarks", torch.zeros(components + stats, landmarks))
        self.register_buffer("squares", torch.zeros(landmarks))
        self.register_buffer("weight", torch.zeros(landmarks, LOGITS))
        self.register_buffer("bias", torch.zeros(LOGITS))

    def embed(self, deep: Tensor, stats: Tensor) -> Tensor:
        """Return vectors whose squared distances the kernel takes."""
        a = self.deep(deep) @ self.projection / self.sizes[0] ** 0.5
        return torch.cat([a, self.stats(stats) / self.sizes[1] ** 0.5], 1)

    def kernel(self, x: Tensor) -> Tensor:
        """Return the kernel values of embedded photos [N, E] with the landmarks, [N, L]."""
        square = (x * x).sum(1, keepdim=True) + self.squares
        return torch.exp(-self.gamma * (square - 2 * x @ self.landmarks).clamp_min(0))

    def place(self, x: Tensor) -> None:
        """Take embedded photos [L, E] as the landmarks, as they will be stored (see export.to_onnx)."""
        self.landmarks.copy_(x.T.half().float())
        self.squares.copy_((self.landmarks**2).sum(0))

    def forward(self, deep: Tensor, stats: Tensor) -> Tensor:
        return self.kernel(self.embed(deep, stats)) @ self.weight + self.bias


class Network(nn.Module):
    """Photos [N, 3, 256, 192], float 0..1 -> logits [N, 32] (see `outputs`).

    `size` is what the backbone sees, height and width; the statistics see all pixels.
    """

    def __init__(self, backbone: Backbone, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        super().__init__()
        self.backbone, self.size = backbone, size
        self.deep_size = sum(backbone.channels)
        with torch.no_grad():
            self.stats_size = statistics(torch.zeros(1, 3, HEIGHT, WIDTH)).shape[1]
        self.head: LinearHead | KernelHead = LinearHead(self.deep_size, self.stats_size)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return deep features [N, D], the mean of each map, and statistics [N, K]."""
        small = x if self.size == (HEIGHT, WIDTH) else F.interpolate(x, self.size, mode="bilinear", align_corners=False)
        pooled = [F.adaptive_avg_pool2d(found, 1).flatten(1) for found in self.backbone(small)]
        return torch.cat(pooled, 1), statistics(x)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(*self.features(x)))


class Deployed(nn.Module):
    """What is exported: photos [N, 256, 192, 3] uint8 RGB -> the four outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return outputs(self.network(photos.permute(0, 3, 1, 2).to(torch.float32) / 255))
