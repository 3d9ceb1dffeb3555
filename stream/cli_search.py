"""What search engineers use: the sink of the index, the lookup service, rankings tried on logs, experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table

from stream import settings as settings_module
from stream.cli_options import Group, console, example, options_environment, require, settings_options

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_OUT = click.Path(path_type=Path)


@click.command(epilog=example("image-score index --kafka broker:9092 --search https://search:9200"))
@settings_options("kafka", "scores_topic", "dlq_topic", "search", "index_", "health_port", "drain_timeout_s")
def index(**options: Any) -> None:
    """Keep the scores of search's documents up to date until SIGTERM (OpenSearch or Elasticsearch)."""
    from stream.search.index import run

    settings = settings_module.load(**options)
    require(settings, "kafka", "search")
    run(settings)


@click.command("lookup-service", epilog=example("image-score lookup-service --redis redis://cache:6379/0"))
@settings_options("redis", "lookup_")
def lookup_service(**options: Any) -> None:
    """Serve scores to search over HTTP and gRPC until SIGTERM; /docs describes it."""
    from stream.lookup.service import run

    settings = settings_module.load(**options)
    require(settings, "redis")
    run(settings)


@click.command(
    "simulate-ranking",
    epilog=example("image-score simulate-ranking log.parquet --scores scores.parquet --out ranking"),
    context_settings=options_environment("SIMULATE_RANKING"),
)
@click.argument("log", type=_FILE)
@click.option("--scores", type=_FILE, help="listing_id and score, Parquet or CSV; default: asked of --redis")
@click.option("--out", type=_OUT, default=Path("ranking"), help="folder of the report")
@click.option("--max-places", type=click.IntRange(0), default=3, help="places that a result may move")
@click.option("--weight", type=click.FloatRange(0, 1), default=0.2, help="share of the relevance that a photo may add")
@click.option("--band", type=click.FloatRange(0, 1), default=0.25, help="how much less relevant may come before")
@click.option("--simulated", default="", help="how the log was simulated, if it was: said at the report's top")
@click.option("--seed", default=0)
@settings_options("redis", "lookup_neutral")
def simulate_ranking(log: Path, scores: Path | None, out: Path, simulated: str, seed: int, **options: Any) -> None:
    """Tell from logged searches what ranking with the score would change, before any buyer sees it.

    The log has the columns that `image-score pairs` reads; `relevance` (of search, above 0) and `seller_id` are used
    where they are there.
    """
    from stream.search import replay
    from stream.search.rerank import Rules

    rules = Rules(**{name: options.pop(name) for name in ("max_places", "weight", "band")})
    settings = settings_module.load(**options)
    found = replay.read_log(log)
    if scores is None:
        require(settings, "redis")
    known = replay.read_scores(scores) if scores else replay.lookup_scores(settings, found)
    report = replay.simulate(found, known, rules, seed)
    replay.write(report, out, simulated)
    table = Table("estimate", "logged", "re-ranked", "change", "95% interval")
    for row in report.overall:
        table.add_row(
            row.name, *(f"{v:.4f}" for v in (row.logged, row.new, row.change)), f"{row.low:.4f} to {row.high:.4f}"
        )
    console().print(table)
    click.echo(f"{out}/report.html: by category and by seller size")


@click.group(cls=Group)
def experiment() -> None:
    """Online experiments: who sees what, and what it did."""


@experiment.command(
    epilog=example("image-score experiment assign experiments.json user-7 user-8"),
    context_settings=options_environment("EXPERIMENT_ASSIGN"),
)
@click.argument("file", type=_FILE)
@click.argument("users", nargs=-1)
@click.option("--users-file", type=click.File("r"), help="one user a line (- reads standard input)")
@click.option("--counts", is_flag=True, help="how many users each arm has, instead of each user's arms")
def assign(file: Path, users: tuple[str, ...], users_file: Any, counts: bool) -> None:
    """Print the arms that users see, one JSON object a line: the same ones as in the readers for Go and Java."""
    from collections import Counter

    from schemas.base import MessageError
    from schemas.experiment import Experiments

    try:
        rules = Experiments.from_json(file.read_bytes())
    except MessageError as error:
        raise click.ClickException(f"{file}: {error}") from None
    asked = [*users, *(line.strip() for line in users_file or () if line.strip())]
    if not asked:
        raise click.UsageError("no users: name them, or give --users-file")
    if not counts:
        for user in asked:
            click.echo(orjson.dumps({"user": user, "arms": rules.assign(user)}))
        return
    found = Counter(pair for user in asked for pair in rules.assign(user).items())
    table = Table("experiment", "arm", "users", "share of all")
    for (name, arm), count in sorted(found.items()):
        table.add_row(name, arm, str(count), f"{count / len(asked):.2%}")
    console().print(table)


@experiment.command(
    epilog=example("image-score experiment analyze exposures.parquet events.parquet --out experiment"),
    context_settings=options_environment("EXPERIMENT_ANALYZE"),
)
@click.argument("exposures", type=_FILE)
@click.argument("events", type=_FILE)
@click.option("--control", default="control", help="name of the arm to compare with")
@click.option("--treatment", default="treatment", help="name of the arm to compare")
@click.option("--weights", default="1:1", help="how users were shared out, control:treatment")
@click.option(
    "--expected-lift", type=click.FloatRange(0, min_open=True), default=0.05, help="a plausible change, set before"
)
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05)
@click.option("--title", default="Experiment")
@click.option("--simulated", default="", help="how the data was simulated, if it was: said at the report's top")
@click.option("--out", type=_OUT, default=Path("experiment"), help="folder of the report")
@click.option("--seed", default=0)
def analyze(exposures: Path, events: Path, control: str, treatment: str, weights: str, out: Path, **o: Any) -> None:
    """Compare two arms, and write one HTML page with the decision at its top.

    \b
    exposures: user_id, arm, at; any further text column is a segment
    events:    user_id, at, type (search, impression, click, transaction), value (paid; of a search: its
               milliseconds), seller_id and new_seller (of an impression)
    Both are Parquet or CSV. Events from before a user's exposure reduce the variance (CUPED).
    """
    from stream.experiment import analysis, logs, report

    shares = weights.split(":")
    if len(shares) != 2 or not all(share.replace(".", "", 1).isdigit() for share in shares):
        raise click.BadParameter(f"{weights!r} is not control:treatment, such as 1:1 or 90:10", param_hint="--weights")
    shared = dict(zip((control, treatment), map(float, shares), strict=True))
    read = logs.read(exposures, events)
    found = analysis.analyze(read, control, treatment, shared, o["expected_lift"], o["alpha"], o["seed"])
    report.write(found, out, o["title"], o["simulated"])
    kind, why = found.decision
    click.echo(f"{kind}: {why}\n{out}/report.html")


COMMANDS: tuple[click.Command, ...] = (index, lookup_service, simulate_ranking, experiment)
