"""Train the image_score model from labelled photos, from random weights, and export it to ONNX.

    python -m triton_models.train --photos ../shared/photos --labels ../shared/labels

Labels are JSON lines (photo, category, score 1..5, six aspects 1..5, issues); a photo labelled by two judges
is learned from the mean of both. Losses: focal loss over the five classes (the paper's choice), squared error
for aspects and the fine score, cross-entropy for issues. A third of the photos get a made flaw (degrade.py).
"""

from __future__ import annotations

import argparse
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from schemas.vocabulary import ASPECTS, CLASSES, ISSUES
from triton_models import evaluate
from triton_models.card import write_card
from triton_models.degrade import degrade
from triton_models.network import HEIGHT, WIDTH, Deployed, Network, outputs

VERSION_DIR = Path(__file__).parent / "repository" / "image_score" / "1"
MAX_SHIFT = 12
BATCH = 48

Label = dict[str, Any]


def read_labels(path: Path) -> list[Label]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def target(judgements: list[Label]) -> list[float]:
    """Return classes [5], aspects [6], issues [20] and fine score [1], all 0..1: the mean of the judgements."""
    classes = [np.mean([j["score"] == c for j in judgements]) for c in CLASSES]
    aspects = [np.mean([(j["aspects"][a] - 1) / 4 for j in judgements]) for a in ASPECTS]
    issues = [np.mean([i in j["issues"] for j in judgements]) for i in ISSUES]
    fine = np.mean([evaluate.fine_score(j) for j in judgements])
    return [float(v) for v in (*classes, *aspects, *issues, fine)]


def load_photos(paths: list[Path]) -> NDArray[np.uint8]:
    """Return the photos as [N, 256, 192, 3] RGB, resized as the served model does (see its model.py)."""
    photos = np.empty((len(paths), HEIGHT, WIDTH, 3), np.uint8)
    for i, path in enumerate(track(paths, "reading photos")):
        with Image.open(path) as image:
            image.draft("RGB", (2 * WIDTH, 2 * HEIGHT))
            photos[i] = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return photos


def augment(photos: Tensor, targets: Tensor, flawed_share: float) -> tuple[Tensor, Tensor]:
    """Flip, shift, and change light and colour a little; put a made flaw into some."""
    n = len(photos)
    flip = torch.rand(n) < 0.5
    x = torch.where(flip.view(n, 1, 1, 1), photos.flip(3), photos)
    top, left = random.randint(0, 2 * MAX_SHIFT), random.randint(0, 2 * MAX_SHIFT)
    x = F.pad(x, [MAX_SHIFT] * 4, mode="replicate")[:, :, top : top + HEIGHT, left : left + WIDTH]
    light = 1 + 0.1 * (torch.rand(n, 1, 1, 1) - 0.5)
    tint = 1 + 0.04 * (torch.rand(n, 3, 1, 1) - 0.5)
    x = (x * light * tint).clamp(0, 1)
    targets = targets.clone()
    for i in torch.nonzero(torch.rand(n) < flawed_share).flatten().tolist():
        x[i], targets[i] = degrade(x[i], targets[i])
    return x.contiguous(memory_format=torch.channels_last), targets


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    score, class_probs, aspects, _ = outputs(logits)
    focal = -(targets[:, :5] * (1 - class_probs) ** 2 * logits[:, :5].log_softmax(1)).sum(1).mean()
    issues = F.binary_cross_entropy_with_logits(logits[:, 11:], targets[:, 11:31])
    return focal + 6 * F.mse_loss(aspects, targets[:, 5:11]) + 2 * issues + 10 * F.mse_loss(score, targets[:, 31:])


def to_input(photos: Tensor) -> Tensor:
    return photos.permute(0, 3, 1, 2).float() / 255


def fit(photos: Tensor, targets: Tensor, epochs: int, seed: int, flawed_share: float) -> Network:
    """Train one network; the same seed on the same machine gives the same network."""
    torch.manual_seed(seed)
    random.seed(seed)
    network = Network().to(memory_format=torch.channels_last)
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3)
    steps = len(photos) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs * steps, pct_start=0.15)
    for _ in track(range(epochs), f"training (seed {seed})"):
        network.train()
        order = torch.randperm(len(photos))
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            x, y = augment(to_input(photos[batch]), targets[batch], flawed_share)
            value = loss(network(x), y)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return network.eval()


def export(networks: list[Network], path: Path) -> None:
    """Write one ONNX file that averages `networks`; its batch size is free."""
    names = ["SCORE", "CLASS_PROBS", "ASPECTS", "ISSUES"]
    torch.onnx.export(
        Deployed(networks).eval(),
        (torch.zeros(2, HEIGHT, WIDTH, 3, dtype=torch.uint8),),
        str(path),
        input_names=["PHOTOS"],
        output_names=names,
        dynamic_axes={name: {0: "batch"} for name in ["PHOTOS", *names]},
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder that the labels' paths start from")
    parser.add_argument("--labels", type=Path, required=True, help="folder of train*.jsonl, validation.jsonl")
    parser.add_argument("--out", type=Path, default=VERSION_DIR, help="where model.onnx and the card go")
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=1, help="networks to train and average")
    parser.add_argument("--flawed-share", type=float, default=0.35, help="share of photos with a made flaw")
    args = parser.parse_args()

    train = read_labels(args.labels / "train.jsonl")
    second = {label["photo"]: label for label in read_labels(args.labels / "train-second.jsonl")}
    judged = [[j for j in (label, second.get(label["photo"])) if j] for label in train]
    targets = torch.tensor([target(judgements) for judgements in judged])
    photos = torch.from_numpy(load_photos([args.photos / label["photo"] for label in train]))
    networks = [fit(photos, targets, args.epochs, seed, args.flawed_share) for seed in range(args.seeds)]

    args.out.mkdir(parents=True, exist_ok=True)
    export(networks, args.out / "model.onnx")
    validation = read_labels(args.labels / "validation.jsonl")
    report = evaluate.report(
        args.out / "model.onnx",
        load_photos([args.photos / label["photo"] for label in validation]),
        validation,
        read_labels(args.labels / "pairs-validation.jsonl"),
    )
    report["training"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "photos": len(train),
        "epochs": args.epochs,
        "flawed_share": args.flawed_share,
    }
    report["issue_impacts"] = evaluate.issue_impacts(train)
    write_card(report, args.out / "MODEL_CARD.md")
    (args.out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
