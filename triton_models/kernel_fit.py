"""Fits a KernelHead on the features of a frozen backbone: projection, landmarks, and weights by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from triton_models.network import LOGITS, KernelHead

_JITTER = 1e-4
_STEPS = 200
SCORE_PENALTY, PENALTY = 1.5e-3, 1e-5
"""Weights of the squared norms of the score's and of the other outputs' functions, beside the mean loss. Chosen by
leaving out all photos of some cameras (photo sizes), which is near to leaving out sellers."""

Loss = Callable[[Tensor], Tensor]
"""Logits [N, 32] of all photos -> their mean loss."""


def fit(head: KernelHead, deep: Tensor, stats: Tensor, targets: Tensor, loss: Loss, seed: int = 0) -> None:
    """Fit `head` to features of N photos and their targets [N, 32]."""
    head.deep.fit(deep)
    head.stats.fit(stats)
    with torch.no_grad():
        standard = head.deep(deep)
        centred = standard - standard.mean(0)
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        head.projection.copy_(vectors[:, -head.projection.shape[1] :])
        x = head.embed(deep, stats)
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: len(head.squares)]
        head.place(x[chosen])
        # Whitened features: a squared norm of weights on them is the function's norm in the kernel's space.
        head.double()
        own = head.kernel(head.landmarks.T)
        root = torch.linalg.cholesky(own + _JITTER * torch.eye(len(own)))
        white = torch.linalg.solve_triangular(root, head.kernel(x.double()).T, upper=False).T.float()
        head.float()
    weight, bias = _minimise(white, targets, loss)
    head.weight.copy_(torch.linalg.solve_triangular(root.T, weight.double(), upper=True).float())
    head.bias.copy_(bias)


def _minimise(white: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    penalties = torch.full((LOGITS,), PENALTY)
    penalties[31] = SCORE_PENALTY
    weight = torch.zeros(white.shape[1], LOGITS, requires_grad=True)
    mean = targets.mean(0).clamp(0.01, 0.99)
    start = torch.cat([mean[:5].log(), (mean[5:31] / (1 - mean[5:31])).log(), mean[31:]])
    bias = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(white @ weight + bias) + (penalties * weight**2).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return weight.detach(), bias.detach()
