"""The command line: `image-score --help`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table

from stream import cli_search, cli_sellers, log
from stream import settings as settings_module
from stream.cli_dlq import dlq
from stream.cli_options import Group, console, example, parse_time, require, settings_options
from stream.settings import ENV_PREFIX, Settings
from triton_models import cli as offline


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="image-score")
def main() -> None:
    """Score the photos of a marketplace's listings, and tell sellers how to take better ones.

    Every setting is an environment variable IMAGE_SCORE_*; `image-score config` lists them.
    """
    log.set_up()


main.add_command(dlq)
for command in (*cli_sellers.COMMANDS, *cli_search.COMMANDS, *offline.COMMANDS):
    main.add_command(command)


@main.command(epilog=example("image-score demo --photos ~/Pictures/for-sale"))
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="a file = a listing, a subfolder = one with several photos; default: drawn samples",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("image-score-demo"), show_default=True)
@click.option("--locale", default="en", show_default=True, help="the sellers' language: en, ja, de, es")
@settings_options("kafka", "redis", "triton")
def demo(photos: Path | None, out: Path, locale: str, **options: Any) -> None:
    """Run the whole pipeline on photos and show the result as a table and a contact sheet."""
    from stream.demo.run import run_demo

    run_demo(settings_module.load(**options), photos, out, locale, console())


@main.command(epilog=example('image-score up   # then, in another shell, paste the "export" lines'))
@settings_options("kafka", "redis", "triton")
def up(**options: Any) -> None:
    """Start the embedded servers, print their addresses, and keep them until Ctrl-C."""
    from stream.embedded import EmbeddedStack

    ends = {signal.SIGINT, signal.SIGTERM}
    with EmbeddedStack(settings_module.load(**options)) as stack:
        # Blocked only now, or the servers would inherit the mask and ignore the signal that stops them.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        for name in ("kafka", "redis", "triton"):
            click.echo(f"export {ENV_PREFIX}{name.upper()}={getattr(stack.settings, name)}")
        click.echo("running until Ctrl-C", err=True)
        signal.sigwait(ends)


@main.command(epilog=example("image-score score photo.jpg --json"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line: path, score, aspects, issues")
@settings_options("triton", "max_")
def score(files: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Score photo files straight through Triton, without Kafka and Redis."""
    from stream.score_files import score_files

    failures = 0
    rows = Table("photo", "score", "aspects", "issues")
    for result in score_files(settings_module.load(**options), files):
        failures += "error" in result
        if as_json:
            click.echo(orjson.dumps(result))
        elif "error" in result:
            rows.add_row(result["path"], "-", "", f"{result['error']['type']}: {result['error']['message']}")
        else:
            aspects = " ".join(f"{name} {value:.2f}" for name, value in result["aspects"].items())
            issues = " ".join(f"{name} {p:.2f}" for name, p in result["issues"].items() if p >= 0.2)
            rows.add_row(result["path"], f"{result['score']:.2f}", aspects, issues)
    if not as_json:
        console().print(rows)
    if failures:
        raise click.ClickException(f"{failures} of {len(files)} files could not be scored")


@main.command(epilog=example("image-score fix photo.jpg -o fixed"))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("fixed"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line: path, score, fixes")
@settings_options("triton", "max_")
def fix(files: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Try on photo files what an editor could mend; write what raises the score, and before and after side by side."""
    from stream.fixes.files import fix_files

    rows = Table("photo", "score", "what raises it")
    failures = 0
    for result in fix_files(settings_module.load(**options), files, out):
        failures += "error" in result
        if as_json:
            click.echo(orjson.dumps(result))
        elif "error" in result:
            rows.add_row(result["path"], "-", f"{result['error']['type']}: {result['error']['message']}")
        else:
            fixes = ", ".join(f"{one['fix']} {result['score']:.2f} -> {one['score']:.2f}" for one in result["fixes"])
            rows.add_row(result["path"], f"{result['score']:.2f}", fixes or "nothing that an editor could do")
    if not as_json:
        console().print(rows)
    if failures:
        raise click.ClickException(f"{failures} of {len(files)} files could not be read")


@main.command(
    epilog=example("image-score worker --kafka broker:9092 --redis redis://cache:6379/0 --triton triton:8001")
)
@settings_options("")
def worker(**options: Any) -> None:
    """Score listing events until SIGTERM; several workers share the partitions."""
    from stream.worker import run

    settings = settings_module.load(**options)
    require(settings, "kafka", "redis", "triton")
    run(settings)


@main.command(epilog=example("image-score publish events.jsonl --kafka broker:9092"))
@click.argument("file", type=click.File("rb"))
@settings_options("kafka", "events_")
def publish(file: Any, **options: Any) -> None:
    """Check and publish listing events, one JSON object a line (- reads standard input)."""
    from stream.publish import events_of_lines
    from stream.publish import publish as produce

    settings = settings_module.load(**options)
    require(settings, "kafka")
    events = list(events_of_lines(file))
    with click.progressbar(length=len(events), label="publishing", file=sys.stderr) as bar:
        count = produce(settings, events, on_delivery=lambda: bar.update(1))
    click.echo(f"{count} events published to {settings.events_topic}")


@main.command(epilog=example("image-score get m123 --redis redis://cache:6379/0"))
@click.argument("listing_id")
@settings_options("redis")
def get(listing_id: str, **options: Any) -> None:
    """Print what search reads for a listing, as JSON; exit 1 when it has no score."""
    from stream.score_files import read_record

    settings = settings_module.load(**options)
    require(settings, "redis")
    record = read_record(settings, listing_id)
    if record is None:
        raise click.ClickException(f"listing {listing_id} has no score: not scored yet, or deleted")
    click.echo(record.to_json())


@main.command(epilog=example("image-score backfill --since 7d --events-per-s 50"))
@click.option("--since", help="only events from this time on: 2026-01-31T09:30:00Z, or 30m, 2h, 7d for so long ago")
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="events, one JSON a line")
@settings_options("")
def backfill(since: str | None, file: Path | None, **options: Any) -> None:
    """Score events again, from the events topic or a file, without delaying new ones.

    At most --events-per-s (default 20) are started a second. Ctrl-C interrupts it; the same command goes on.
    """
    from stream.backfill import Backfill

    options["events_per_s"] = options["events_per_s"] or os.environ.get(f"{ENV_PREFIX}EVENTS_PER_S") or 20
    settings = settings_module.load(**options)
    require(settings, "kafka", "redis", "triton")
    job = Backfill(settings, parse_time(since) if since else None, file)
    total = job.copy()
    with click.progressbar(length=total, label="scoring again", file=sys.stderr) as bar:
        outcomes = job.score(lambda left: bar.update(max(0, total - left - bar.pos)))
    click.echo(", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in outcomes.items()) or "nothing")
    if left := job.left():
        raise click.ClickException(f"{left} events are left: run the same command again")


@main.group()
def topics() -> None:
    """The Kafka topics of the pipeline."""


@topics.command("create", epilog=example("image-score topics create --kafka broker:9092 --replication 3"))
@settings_options(
    "kafka",
    "events_topic",
    "retry_topic",
    "backfill_topic",
    "scores_topic",
    "shadow_topic",
    "hints_",
    "notice",
    "feedback_",
    "dlq_",
    "partitions",
    "replication",
)
def create(**options: Any) -> None:
    """Create the topics that are not there yet."""
    from stream.kafka import check, create_topics

    settings = settings_module.load(**options)
    require(settings, "kafka")
    check(settings)
    for name, done in create_topics(settings).items():
        click.echo(f"{name}: {done}")


@main.group()
def schemas() -> None:
    """The JSON Schemas of the messages."""


@schemas.command("export", epilog=example("image-score schemas export --out build/schemas"))
@click.option("--out", type=click.Path(path_type=Path), help="default: schemas/json of the project")
def export(out: Path | None) -> None:
    """Write the JSON Schema of every message."""
    from schemas import export as schema_export

    for path in schema_export.export(out or schema_export.JSON_DIR):
        click.echo(path)


@main.command(epilog=example("IMAGE_SCORE_FETCHES=128 image-score config"))
@click.option("--json", "as_json", is_flag=True)
@settings_options("")
def config(as_json: bool, **options: Any) -> None:
    """Show the effective settings and where each came from."""
    settings = settings_module.load(**options)
    rows = [
        {
            "setting": name,
            "value": settings_module.shown(getattr(settings, name)),
            "from": settings_module.origin(name, options),
            "variable": f"{ENV_PREFIX}{name.upper()}",
            "description": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table("setting", "value", "from", "what it is")
    for row in rows:
        table.add_row(row["setting"], row["value"], row["from"], row["description"])
    console().print(table)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
