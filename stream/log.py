"""The log of the online path: one line an entry, on standard error."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("image_score")


def set_up() -> None:
    """Send log lines to standard error, as `time level message`; of libraries, only warnings and worse."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
