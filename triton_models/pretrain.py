"""Pre-training without labels: which of two copies of a photo is harmed more, and by what.

Each step takes photos, harms two copies of each by one made flaw at two strengths, and asks the backbone to rank the
two and to name the flaw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from triton_models.data import to_input, vary
from triton_models.degrade import FLAWS, NAMES
from triton_models.errors import LabelError
from triton_models.network import Network
from triton_models.photos import load_photos, photos_below
from triton_models.train import Config, device, make_network

_LEAST_GAP = 0.2


class Task(nn.Module):
    """A backbone, with one output that ranks and one for each flaw that names."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.out = nn.Linear(network.deep_size, 1 + len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.out(self.network.features(x)[0]))


def harmed(photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a less and a more harmed copy of photos [N, 3, H, W], each [N, 3, H, W], and the flaws' numbers [N]."""
    less, more, names = [], [], torch.randint(len(NAMES), (len(photos),))
    for photo, name in zip(photos, names.tolist()):
        weak = float(torch.rand(())) * (1 - _LEAST_GAP)
        strong = weak + _LEAST_GAP + float(torch.rand(())) * (1 - _LEAST_GAP - weak)
        make = FLAWS[NAMES[name]].make
        less.append(make(photo, weak))
        more.append(make(photo, strong))
    return torch.stack(less), torch.stack(more), names


def task_loss(task: Task, photos: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the loss for photos [N, 3, H, W], and the shares that were ranked and named rightly."""
    less, more, names = harmed(photos)
    where = next(task.parameters()).device
    logits = task(torch.cat([less, more]).to(where))
    weak, strong = logits.chunk(2)
    margin, names = weak[:, 0] - strong[:, 0], names.to(where)
    loss = F.softplus(-margin).mean() + F.cross_entropy(strong[:, 1:], names)
    named = (strong[:, 1:].argmax(1) == names).float().mean()
    return loss, {"ranked": float((margin > 0).float().mean()), "named": float(named)}


def pretrain(config: Config, folder: Path, epochs: int, out: Path) -> dict[str, Any]:
    """Return the state of a backbone pre-trained on the photos of `folder`; also written to `out`/pretrained.pt, from
    where a second run takes it.

    Raises:
        LabelError: the folder has no photos, or one does not decode.
    """
    path = out / "pretrained.pt"
    if path.is_file():
        return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
    names = [photo.relative_to(folder).as_posix() for photo in photos_below(folder)]
    if len(names) < config.batch:
        raise LabelError(f"{len(names)} photos in {str(folder)!r} are too few for a batch of {config.batch}")
    photos = torch.from_numpy(load_photos(folder, names))
    task = Task(make_network(config)).to(device())
    optimizer = torch.optim.AdamW(task.parameters(), lr=config.rate, weight_decay=0.05)
    for _ in track(range(epochs), "pre-training", transient=True):
        task.train()
        for rows in torch.randperm(len(photos)).split(config.batch):
            loss, _ = task_loss(task, vary(to_input(photos[rows])))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(task.parameters(), 5.0)
            optimizer.step()
    state = {name: value.cpu() for name, value in task.network.backbone.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state
