"""The offline commands: label, pairs, train, evaluate, export, models. What they need is the `train` extra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from stream import settings as settings_module
from stream.cli_options import Group, console, example, options_environment, require, settings_options
from stream.errors import ImageScoreError
from triton_models import REPOSITORY

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_OUT = click.Path(path_type=Path)


@click.command(epilog=example("image-score label photos --out labels.jsonl --model gpt-4o-mini --budget 5"))
@click.argument("photos", type=_FOLDER)
@click.option("--out", type=_OUT, required=True, help="a label a line; reports go beside it")
@click.option("--model", required=True, help="a model that sees, as the endpoint names it")
@click.option("--endpoint", default="https://api.openai.com/v1", help="any OpenAI-compatible endpoint")
@click.option("--api-key", envvar=["IMAGE_SCORE_LABEL_API_KEY", "OPENAI_API_KEY"], default="", help="its key")
@click.option("--rubric", type=_FILE, help="default: the project's, triton_models/labelling/rubric.md")
@click.option("--samples", type=click.IntRange(1, 20), default=1, help="answers a photo, to be averaged")
@click.option("--budget", type=click.FloatRange(0), help="stop before more than this is spent")
@click.option("--price-in", type=click.FloatRange(0), default=0.15, help="price of a million tokens sent")
@click.option("--price-out", type=click.FloatRange(0), default=0.6, help="price of a million tokens answered")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, help="requests at once")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, help="seconds for one answer")
@click.option("--cache", type=_OUT, help="answers so far; default: beside --out, .answers.sqlite")
@click.option("--batch", is_flag=True, help="through the batch API: cheaper, within 24 hours")
@click.option("--batch-poll", type=click.FloatRange(0.1), default=30.0, help="seconds between two looks at a batch")
def label(photos: Path, out: Path, model: str, endpoint: str, api_key: str, rubric: Path | None, **o: Any) -> None:
    """Label the photos of a folder with an LLM, by chain of thought, by a rubric.

    Answers are cached by photo, rubric and model: the same command goes on where it stopped, at no cost.
    """
    import asyncio

    from openai import AsyncOpenAI

    from triton_models.labelling import batch as by_batch
    from triton_models.labelling import labeller, report
    from triton_models.labelling.answers import Answers
    from triton_models.labelling.limits import Budget
    from triton_models.labelling.prompt import RUBRIC, Rubric
    from triton_models.photos import photos_below

    rules = Rubric(rubric or RUBRIC)
    options = labeller.Options(model, o["samples"], o["concurrency"], timeout_s=o["timeout"])
    jobs = labeller.jobs_of(photos_below(photos), rules, options)
    budget = Budget(o["budget"], o["price_in"], o["price_out"], options.max_tokens)

    async def run(answers: Answers) -> labeller.Outcome:
        async with AsyncOpenAI(base_url=endpoint, api_key=api_key or "none", max_retries=0) as client:
            common = client, rules, options, answers, budget
            worker = by_batch.BatchLabeller(*common, o["batch_poll"]) if o["batch"] else labeller.Labeller(*common)
            with Progress(console=Console(stderr=True)) as progress:
                bar = progress.add_task("labelling", total=len(jobs))
                return await worker.run(jobs, lambda: progress.advance(bar))

    with Answers(o["cache"] or out.with_suffix(".answers.sqlite")) as answers:
        outcome = asyncio.run(run(answers))
        found = report.write(jobs, photos, out, answers, model, outcome, budget)
    click.echo(json.dumps(found))
    if outcome.stopped_by_budget:
        raise click.ClickException(
            f"the budget is used up: {found['labelled']} of {found['photos']} photos are labelled"
        )


_LOG_COLUMNS = """\b
LOG is Parquet or CSV, a row for each result of each search:
  search_id   text     one result page that one buyer saw
  listing_id  text     the listing
  photo       text     its cover photo: a path or an id
  category    text     the listing's category
  title       text     the listing's title
  price       number   the listing's price, above 0
  position    integer  rank on the page, from 1
  seen        boolean  whether the result was on the buyer's screen
  clicked     boolean  whether the buyer opened it
  bought      boolean  whether the buyer bought it
"""


@click.command(
    epilog=example("image-score pairs searches.parquet --out pairs.jsonl --price-ratio 1.3"),
    help=f"""Make preference pairs of photos from search logs: one result chosen, a similar one seen and not.

{_LOG_COLUMNS}""",
)
@click.argument("log", type=_FILE)
@click.option(
    "--out", type=_OUT, required=True, help=".jsonl or .parquet: better, worse, category, weight, wins, losses"
)
@click.option(
    "--price-ratio", type=click.FloatRange(1), default=1.5, help="the dearer one costs at most this much more"
)
@click.option(
    "--title-similarity", type=click.FloatRange(0, 1), default=0.3, help="least share of the titles' words in common"
)
@click.option("--min-impressions", type=click.IntRange(1), default=1, help="a listing must have been seen this often")
@click.option(
    "--min-margin", type=click.FloatRange(0), default=1.0, help="least weighted searches for, less those against"
)
@click.option(
    "--bias",
    type=click.Choice(["lower_chosen", "ipw"]),
    default="lower_chosen",
    help="keep pairs whose chosen result stood lower, or weigh all by inverse propensity",
)
def pairs(log: Path, out: Path, **options: Any) -> None:
    from triton_models.preferences.pairs import Filters, preference_pairs, read_log, write_pairs

    found = preference_pairs(read_log(log), Filters(**options))
    write_pairs(found, out)
    photos = len(set(found["better"]) | set(found["worse"]))
    click.echo(json.dumps({"pairs": len(found), "photos": photos, "out": str(out)}))
    if found.is_empty():
        raise click.ClickException("no pairs: relax --price-ratio, --title-similarity or --min-margin")


@click.command(epilog=example("image-score train --photos photos --labels labels.jsonl --out run"))
@click.option("--photos", type=_FOLDER, required=True, help="folder that the labels' paths start from")
@click.option(
    "--labels", type=_FILE, multiple=True, required=True, help="may be repeated; a photo in several is averaged"
)
@click.option("--validation", type=_FILE, help="labels that say when to stop; default: 15% of --labels")
@click.option("--pairs", type=_FILE, help="preference pairs to learn from as well")
@click.option(
    "--out", type=_OUT, required=True, help="folder of the network, checkpoint and logs; the same one resumes"
)
@click.option("--backbone", default="compact", help="compact, timm/NAME or open_clip/NAME")
@click.option("--weights", type=_FILE, help="local file with the backbone's weights")
@click.option("--head", type=click.Choice(["linear", "kernel"]), default="linear", help="kernel: on a frozen backbone")
@click.option("--height", type=click.IntRange(32, 256), default=256, help="what the backbone sees, in pixels")
@click.option("--width", type=click.IntRange(32, 256), default=192)
@click.option("--epochs", type=click.IntRange(0), default=28)
@click.option("--batch", type=click.IntRange(2), default=48)
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=2e-3, help="highest learning rate")
@click.option("--class-loss", type=click.Choice(["focal", "ordinal", "cross_entropy"]), default="focal")
@click.option("--pair-weight", type=click.FloatRange(0), default=1.0)
@click.option("--flawed-share", type=click.FloatRange(0, 1), default=0.35, help="share of photos with a made flaw")
@click.option("--patience", type=click.IntRange(1), default=8, help="stop after so many epochs without improvement")
@click.option("--landmarks", type=click.IntRange(1), default=1536, help="of a kernel head")
@click.option("--pretrain", type=click.IntRange(0), default=0, help="epochs of ranking and naming made flaws first")
@click.option("--unlabelled", type=_FOLDER, help="photos for --pretrain; default: --photos")
@click.option("--seed", type=int, default=0)
@click.option("--amp/--no-amp", default=False, help="mixed precision")
def train(photos: Path, labels: tuple[Path, ...], validation: Path | None, out: Path, **o: Any) -> None:
    """Train a network from labelled photos.

    Needs nothing else; on CUDA where there is a GPU. An interrupted run goes on exactly where it was.
    """
    from triton_models import pretrain as pretraining
    from triton_models import train as training
    from triton_models.data import load_data, split
    from triton_models.labels import read_labels, read_pairs

    learned = read_labels(*labels)
    apart = read_labels(validation) if validation else []
    if not apart and o["epochs"]:
        learned, apart = split(learned, 0.15, o["seed"])
    preferences = read_pairs(o.pop("pairs")) if o["pairs"] else o.pop("pairs") or []
    unlabelled, epochs = o.pop("unlabelled") or photos, o.pop("pretrain")
    config = training.Config(**o | {"weights": str(o["weights"] or "")})
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("training", total=config.epochs)

        def on_epoch(epoch: int, srcc: float) -> None:
            progress.update(bar, completed=epoch, description=f"training, SRCC {srcc:.3f}")

        data, kept = load_data(photos, learned, preferences), load_data(photos, apart)
        start = pretraining.pretrain(config, unlabelled, epochs, out) if epochs else None
        network = training.train(config, data, kept, out, on_epoch, start)
    from triton_models import metrics

    found = metrics.srcc(training.scores(network, kept.photos), kept.targets[:, 31].numpy()) if apart else None
    shown = round(found, 4) if found is not None else None
    click.echo(
        json.dumps({"photos": len(learned), "pairs": len(preferences), "validation_srcc": shown, "out": str(out)})
    )


@click.command(epilog=example("image-score evaluate --photos photos --labels validation.jsonl --out report"))
@click.option("--model", type=_FILE, help="a model.onnx; default: the version that the repository serves")
@click.option("--photos", type=_FOLDER, required=True)
@click.option("--labels", type=_FILE, multiple=True, required=True)
@click.option("--pairs", type=_FILE, help="preference pairs, for OPA")
@click.option("--ceiling-srcc", type=click.FloatRange(0, 1), help="what two judges reach, to give the share of it")
@click.option("--ceiling-opa", type=click.FloatRange(0, 1))
@click.option("--harmed", type=click.IntRange(1), default=100, help="photos that robustness is measured on")
@click.option("--out", type=_OUT, required=True, help="folder of report.html, report.png and metrics.json")
def evaluate(
    model: Path | None, photos: Path, labels: tuple[Path, ...], pairs: Path | None, out: Path, **o: Any
) -> None:
    """Measure a model on labels and preference pairs; write a report with plots and its worst photos."""
    from triton_models.evaluate import evaluate as measure
    from triton_models.labels import read_labels, read_pairs
    from triton_models.report import write_report
    from triton_models.serving.versions import Repository

    if model is None:
        repository = Repository()
        model = repository.version(repository.served).folder / "model.onnx"
    ceilings = {name: o[f"ceiling_{name}"] for name in ("srcc", "opa") if o[f"ceiling_{name}"]}
    figures = measure(model, photos, read_labels(*labels), read_pairs(pairs) if pairs else [], ceilings, o["harmed"])
    write_report(figures, photos, out, f"Image Score: {model}")
    shown = {name: figures[name].get("model") for name in ("srcc", "plcc", "opa")} | {"ca": figures["ca"]}
    click.echo(json.dumps({**shown, "report": str(out / "report.html")}))


@click.command(epilog=example("image-score export --run run --photos photos --labels validation.jsonl"))
@click.option("--run", type=_FOLDER, required=True, help="folder that `train` wrote")
@click.option("--photos", type=_FOLDER, required=True, help="photos that the export is checked with")
@click.option("--labels", type=_FILE, multiple=True, required=True, help="what the card's figures are measured on")
@click.option("--pairs", type=_FILE)
@click.option("--ceiling-srcc", type=click.FloatRange(0, 1))
@click.option("--ceiling-opa", type=click.FloatRange(0, 1))
@click.option("--harmed", type=click.IntRange(1), default=100, help="photos that robustness is measured on")
@click.option("--trained-on", type=click.IntRange(0), default=0, help="photos it learned from, for the card")
@click.option("--version", "number", type=click.IntRange(1), help="default: the next")
@click.option("--repository", type=_FOLDER, help="a Triton model repository; default: the project's")
def export(run: Path, photos: Path, labels: tuple[Path, ...], pairs: Path | None, **o: Any) -> None:
    """Write a trained network as the next version of the model in a Triton repository, with its card.

    It is checked first: the same outputs as PyTorch to 1e-3, at most 10 MB. Serve it with `image-score models promote`.
    """
    from triton_models.making import export_run

    ceilings = {name: o[f"ceiling_{name}"] for name in ("srcc", "opa") if o[f"ceiling_{name}"]}
    target, figures = export_run(
        run, photos, labels, pairs, ceilings, o["trained_on"], o["number"], o["repository"], o["harmed"]
    )
    shown = {name: (figures[name] or {}).get("model") for name in ("srcc", "opa")}
    click.echo(json.dumps({"version": int(target.name), "folder": str(target), **shown}))


@click.group(cls=Group)
def models() -> None:
    """The versions of the model: which there are, which one Triton serves, and a candidate beside it."""


_REPOSITORY = click.option(
    "--repository",
    type=_FOLDER,
    envvar="IMAGE_SCORE_REPOSITORY",
    default=REPOSITORY,
    help="Triton's model repository; default: the project's",
)


@models.command("list", epilog=example("image-score models list --triton triton:8001"))
@_REPOSITORY
@settings_options("triton")
def list_models(repository: Path, **options: Any) -> None:
    """List the versions, their figures, and what Triton says of each."""
    from triton_models.serving.control import states
    from triton_models.serving.versions import MODEL, Repository

    settings = settings_module.load(**options)
    found = Repository(repository)
    said = states(settings) if settings.triton else {}
    table = Table("version", "served", "SRCC", "OPA", "MB", "Triton")
    for version in found.versions():
        figures = version.metrics
        srcc, opa = ((figures.get(name) or {}).get("model", {}).get("value", "-") for name in ("srcc", "opa"))
        size = (version.folder / "model.onnx").stat().st_size / 1e6
        served = "yes" if version.number == found.served else ""
        state = said.get((MODEL, version.number), "-")
        table.add_row(str(version.number), served, str(srcc), str(opa), f"{size:.1f}", state)
    console().print(table)


@models.command(epilog=example("image-score models promote 3 --triton triton:8001"))
@click.argument("version", type=click.IntRange(1))
@_REPOSITORY
@settings_options("triton")
def promote(version: int, repository: Path, **options: Any) -> None:
    """Serve a version; no request is lost."""
    from triton_models.serving import control
    from triton_models.serving.versions import Repository

    settings = settings_module.load(**options)
    require(settings, "triton")
    control.promote(settings, Repository(repository), version)
    click.echo(f"version {version} is served")


@models.command(epilog=example("image-score models rollback --triton triton:8001"))
@_REPOSITORY
@settings_options("triton")
def rollback(repository: Path, **options: Any) -> None:
    """Serve the version that was served before."""
    from triton_models.serving import control
    from triton_models.serving.versions import Repository

    settings = settings_module.load(**options)
    require(settings, "triton")
    click.echo(f"version {control.rollback(settings, Repository(repository))} is served")


@models.command(epilog=example("image-score models shadow 3 --kafka broker:9092 --triton triton:8001"))
@click.argument("version", type=click.IntRange(1))
@_REPOSITORY
@settings_options("")
def shadow(version: int, repository: Path, **options: Any) -> None:
    """Score the same events with a candidate version, until SIGTERM; `models compare` tells what it says.

    It writes to its own topic only, at Triton's lower priority: neither search nor sellers see it.
    """
    from stream.shadow import run
    from triton_models.serving import control
    from triton_models.serving.versions import Repository

    settings = settings_module.load(**options)
    require(settings, "kafka", "triton")
    with control.shadow(settings, Repository(repository), version) as model:
        run(settings, model)


@models.command(epilog=example("image-score models compare --out comparison --kafka broker:9092"))
@click.option("--out", type=_OUT, required=True, help="folder of comparison.html and comparison.json")
@settings_options("kafka", "scores_topic", "shadow_topic")
def compare(out: Path, **options: Any) -> None:
    """Compare what the served version and the candidate in shadow mode say of the same photos."""
    from stream.shadow import read_scores
    from triton_models.compare import comparison, write_comparison

    settings = settings_module.load(**options)
    require(settings, "kafka")
    found = comparison(read_scores(settings, settings.scores_topic), read_scores(settings, settings.shadow_topic))
    if not found["photos"]:
        raise ImageScoreError("no photo was scored by both: let `image-score models shadow` run for a while")
    write_comparison(found, out)
    click.echo(json.dumps({name: value for name, value in found.items() if name != "scores"}))


def _guarded(command: click.Command, name: str) -> click.Command:
    command.context_settings.update(options_environment(name))
    return command


COMMANDS = [_guarded(c, str(c.name).upper()) for c in (label, pairs, train, evaluate, export)] + [models]
