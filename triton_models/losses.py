"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_models.network import outputs

GAMMA = 2.0
_MARGIN_SCALE = 10.0
"""A pair's difference of scores, 0..1, times this is its log odds of being in the right order."""


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) of class logits [N, 5] and soft targets [N, 5], gamma 2: the paper's choice."""
    return -(target * (1 - logits.softmax(1)) ** GAMMA * logits.log_softmax(1)).sum(1).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * logits.log_softmax(1)).sum(1).mean()


def ordinal(logits: Tensor, target: Tensor) -> Tensor:
    """Squared earth mover's distance of the classes' distributions (Hou et al. 2016): near misses cost less."""
    return ((logits.softmax(1).cumsum(1) - target.cumsum(1)) ** 2).sum(1).mean()


CLASS_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "focal": focal,
    "ordinal": ordinal,
    "cross_entropy": cross_entropy,
}


def label_loss(logits: Tensor, targets: Tensor, class_loss: str = "focal") -> Tensor:
    """Return the mean loss of logits [N, 32] for targets [N, 32] (see labels.LabelledPhoto.target).

    Classes by `class_loss`, squared error for aspects and the fine score, cross-entropy for issues.
    """
    _, _, aspects, _ = outputs(logits)
    classes = CLASS_LOSSES[class_loss](logits[:, :5], targets[:, :5])
    issues = F.binary_cross_entropy_with_logits(logits[:, 11:31], targets[:, 11:31])
    # The score before it is clamped: a clamped one has no gradient.
    score = F.mse_loss(logits[:, 31], targets[:, 31])
    return classes + 6 * F.mse_loss(aspects, targets[:, 5:11]) + 2 * issues + 30 * score


def pair_loss(better: Tensor, worse: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean logistic loss of pairs, by their logits [N, 32] (Bradley and Terry 1952)."""
    difference = better[:, 31] - worse[:, 31]
    return (weights * F.softplus(-_MARGIN_SCALE * difference)).sum() / weights.sum().clamp_min(torch.finfo().tiny)
