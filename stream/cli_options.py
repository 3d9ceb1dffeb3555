"""What the commands share: options made from the settings, errors as one line, examples, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from rich.console import Console

from stream.errors import ImageScoreError, SettingsError
from stream.settings import ENV_PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(*prefixes: str) -> Callable[[Command], Command]:
    """Add an option for each setting whose name starts with one of `prefixes`."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(Settings.model_fields.items()):
            if name.startswith(prefixes):
                flag = f"--{name.replace('_', '-')}"
                kind = {"is_flag": True} if field.annotation is bool else {"metavar": "VALUE"}
                text = field.description or ""
                command = click.option(flag, name, default=None, help=f"{text}  [{ENV_PREFIX}{name.upper()}]", **kind)(
                    command
                )
        return command

    return decorate


def options_environment(command: str) -> dict[str, Any]:
    """Return click's context settings that make each option also IMAGE_SCORE_<COMMAND>_<OPTION>."""
    return {"auto_envvar_prefix": f"{ENV_PREFIX}{command}", "show_default": True}


def require(settings: Settings, *names: str) -> None:
    """Check that these addresses are set.

    Raises:
        SettingsError: one is not; says how to set it.
    """
    for name in names:
        if not getattr(settings, name):
            raise SettingsError(
                f"{name}: no address; give --{name} or {ENV_PREFIX}{name.upper()}, "
                "or run `image-score up` and paste the lines that it prints"
            )


class Group(click.Group):
    """Ends its help with every command's example; shows our own errors as one line, without a traceback."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in _examples(self)))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImageScoreError as error:
            shown = click.ClickException(str(error))
            shown.exit_code = error.exit_code
            raise shown from None
        except ModuleNotFoundError as error:
            text = f"{error}: this command needs more than the online path: pip install 'image-score[train]'"
            raise click.ClickException(text) from None


def _examples(group: click.Group) -> list[str]:
    lines: list[str] = []
    for command in group.commands.values():
        if isinstance(command, click.Group):
            lines += _examples(command)
        else:
            lines.append((command.epilog or "").splitlines()[-1].strip())
    return lines


def console() -> Console:
    """Return where tables go. A pipe has no width: without one of our own they would be cut to 80 columns."""
    return Console(width=None if sys.stdout.isatty() else 160)


def parse_time(text: str) -> datetime:
    """Return the time that `text` names: RFC 3339, or 30m, 2h, 7d for so long ago.

    Raises:
        ImageScoreError: neither.
    """
    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units:
            return datetime.now(UTC) - timedelta(**{units[text[-1]]: float(text[:-1])})
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ImageScoreError(f"time {text!r}: give 2026-01-31T09:30:00Z, or 30m, 2h, 7d for so long ago") from None


def example(text: str) -> str:
    return f"\b\nExample:\n  {text}"
