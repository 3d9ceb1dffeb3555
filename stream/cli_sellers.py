"""What tells sellers: the hints app, the notices app, and what tips achieve."""

from __future__ import annotations

from typing import Any

import click
import orjson
from rich.table import Table

from stream import settings as settings_module
from stream.cli_options import console, example, parse_time, require, settings_options


@click.command(epilog=example("image-score hints --kafka broker:9092"))
@settings_options("kafka", "hints_", "scores_", "advised_", "delivery", "tip_", "cover_", "model_metrics")
def hints(**options: Any) -> None:
    """Turn scores into seller hints (a Faust app) until SIGTERM."""
    from stream.hints import run

    settings = settings_module.load(**options)
    require(settings, "kafka")
    run(settings)


@click.command(epilog=example("image-score advise --kafka broker:9092 --triton triton:8001"))
@settings_options(
    "kafka",
    "triton",
    "advise",
    "scores_topic",
    "dlq_topic",
    "fetch",
    "max_",
    "infer_",
    "model",
    "health_port",
    "delivery",
)
def advise(**options: Any) -> None:
    """Try fixes on weak photos, and pass their scores on with what raises them, until SIGTERM.

    The hints app reads them with --hints-from advised.
    """
    from stream.advise import run

    settings = settings_module.load(**options)
    require(settings, "kafka", "triton")
    run(settings)


@click.command(epilog=example("image-score notices --kafka broker:9092 --notices-per-day 2"))
@settings_options("kafka", "hints_topic", "feedback_topic", "notice", "partitions")
def notices(**options: Any) -> None:
    """Tell sellers at the right time (a Faust app) until SIGTERM: few a day, digests, quiet hours."""
    from stream.notices import run

    settings = settings_module.load(**options)
    require(settings, "kafka")
    run(settings)


@click.command(epilog=example("image-score feedback --since 30d --kafka broker:9092"))
@click.option("--since", help="only feedback from this time on: 2026-01-31T09:30:00Z, or 2h, 7d for so long ago")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@settings_options("kafka", "feedback_topic", "hints_topic")
def feedback(since: str | None, as_json: bool, **options: Any) -> None:
    """Report what tips achieve, by kind and language: shown, opened, helpful, applied, scores before and after."""
    from statistics import mean

    from schemas.hint_feedback import FeedbackAction
    from stream.feedback import read_effects

    settings = settings_module.load(**options)
    require(settings, "kafka")
    rows = Table("tip", "language", *(action.value.replace("_", " ") for action in FeedbackAction), "before", "after")
    found = read_effects(settings, parse_time(since) if since else None)
    for (kind, language), effect in sorted(found.items()):
        scores = [round(mean(values), 3) if values else None for values in (effect.before, effect.after)]
        counts = {action.value: effect.actions[action] for action in FeedbackAction}
        if as_json:
            line = {"tip": kind, "language": language, **counts, "score_before": scores[0], "score_after": scores[1]}
            click.echo(orjson.dumps(line))
            continue
        cells = [_cell(effect.actions[action], effect.share(action)) for action in FeedbackAction]
        rows.add_row(kind, language, *cells, *("-" if score is None else f"{score:.2f}" for score in scores))
    if not as_json:
        console().print(rows)


def _cell(count: int, share: float | None) -> str:
    return str(count) if share is None else f"{count} ({share:.0%})"


@click.command(epilog=example("image-score studio --kafka broker:9092 --triton triton:8001"))
@settings_options(
    "studio",
    "kafka",
    "triton",
    "scorer_group",
    "scores_topic",
    "events_topic",
    "dlq_topic",
    "fetch",
    "max_",
    "model",
    "tip_",
)
def studio(**options: Any) -> None:
    """Serve the sellers' page, and with --kafka the operators' live page, until SIGTERM.

    Without --triton an embedded one starts.
    """
    from stream.studio.app import run

    run(settings_module.load(**options))


COMMANDS: tuple[click.Command, ...] = (hints, advise, notices, feedback, studio)
