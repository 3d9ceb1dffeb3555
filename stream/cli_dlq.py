"""The commands of `image-score dlq`."""

from __future__ import annotations

from typing import Any

import click
import orjson
from rich.table import Table

from schemas import DeadLetterType
from stream import settings as settings_module
from stream.cli_options import Command, console, example, parse_time, require, settings_options
from stream.dlq import OPEN, PURGED, REPLAYED, Filter, entries, purge, replay
from stream.errors import SettingsError


@click.group()
def dlq() -> None:
    """The dead letters: events that could not become a score."""


def letter_filter(command: Command) -> Command:
    """Add the options that choose dead letters."""
    for flag, text in (
        ("--listing", "only this listing"),
        ("--until", "only those that failed before this time"),
        ("--since", "only those that failed from this time on: 2026-01-31T09:30:00Z, or 30m, 2h, 7d for so long ago"),
        ("--type", "only this type, such as no_scorable_photo"),
    ):
        command = click.option(flag, help=text)(command)
    return command


def _chosen(options: dict[str, Any], **changes: Any) -> Filter:
    given = {name: options.pop(name) for name in ("type", "since", "until", "listing")}
    if given["type"] and given["type"] not in set(DeadLetterType):
        raise SettingsError(f"type: unknown (got {given['type']!r}); one of {', '.join(DeadLetterType)}")
    times = {name: parse_time(given[name]) if given[name] else None for name in ("since", "until")}
    kind = DeadLetterType(given["type"]) if given["type"] else None
    return Filter(**{"type": kind, "listing": given["listing"], **times, **changes})


@dlq.command("list", epilog=example("image-score dlq list --type no_scorable_photo --since 2h"))
@letter_filter
@click.option("--all", "everything", is_flag=True, help="also those that were replayed or purged")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@settings_options("kafka", "dlq_")
def list_letters(everything: bool, as_json: bool, **options: Any) -> None:
    """List the dead letters that are open, oldest first."""

    chosen = _chosen(options, states=(OPEN, REPLAYED, PURGED) if everything else (OPEN,))
    settings = settings_module.load(**options)
    require(settings, "kafka")
    table = Table("place", "failed", "type", "listing", "state", "message")
    found = [entry for entry in entries(settings) if chosen.takes(entry)]
    for entry in found:
        letter = entry.letter
        row = (entry.place, letter.failed_at.isoformat(timespec="seconds"), letter.type, entry.listing, entry.state)
        if as_json:
            names = ("place", "failed_at", "type", "listing", "state", "message")
            click.echo(orjson.dumps(dict(zip(names, (*row, letter.message), strict=True))))
        else:
            table.add_row(*row, letter.message[:160])
    if not as_json:
        console().print(table)
        click.echo(f"{len(found)} dead letters")


@dlq.command("show", epilog=example("image-score dlq show 3:17"))
@click.argument("place")
@settings_options("kafka", "dlq_")
def show_letter(place: str, **options: Any) -> None:
    """Show all of one dead letter, as JSON; PLACE is what `dlq list` shows."""

    settings = settings_module.load(**options)
    require(settings, "kafka")
    entry = next((entry for entry in entries(settings) if entry.place == place), None)
    if entry is None:
        raise click.ClickException(f"no dead letter at {place!r}: `image-score dlq list --all` shows their places")
    shown = {"place": place, "state": entry.state, **orjson.loads(entry.letter.to_json())}
    if entry.letter.value is not None:
        shown["value_text"] = entry.letter.value.decode(errors="backslashreplace")
    click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))


@dlq.command("replay", epilog=example("image-score dlq replay --type no_scorable_photo --since 2h"))
@click.argument("places", nargs=-1)
@letter_filter
@click.option("--again", is_flag=True, help="also those that were replayed before")
@settings_options("kafka", "dlq_")
def replay_letters(places: tuple[str, ...], again: bool, **options: Any) -> None:
    """Send the records of dead letters through the pipeline again, each once; marked by a header."""

    chosen = _chosen(options, places=places, states=(OPEN, REPLAYED) if again else (OPEN,))
    settings = settings_module.load(**options)
    require(settings, "kafka")
    done = replay(settings, chosen)
    click.echo(f"{done.replayed} replayed")
    if done.without_bytes:
        raise click.ClickException(f"{done.without_bytes} were too large to be kept: publish their events again")


@dlq.command("purge", epilog=example("image-score dlq purge --until 30d --yes"))
@letter_filter
@click.option("--yes", is_flag=True, help="do not ask")
@settings_options("kafka", "dlq_")
def purge_letters(yes: bool, **options: Any) -> None:
    """Close dead letters without replaying them, and delete what lies before the first open one."""

    chosen = _chosen(options)
    settings = settings_module.load(**options)
    require(settings, "kafka")
    if not yes:
        count = sum(chosen.takes(entry) for entry in entries(settings))
        click.confirm(f"close {count} dead letters for good?", abort=True)
    closed, deleted = purge(settings, chosen)
    click.echo(f"{closed} closed, {deleted} records deleted")
