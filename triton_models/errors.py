"""The errors of the offline half; each is shown as one line, without a traceback."""

from __future__ import annotations

from stream.errors import ImageScoreError, SettingsError


class LabelError(SettingsError):
    """A file of labels, pairs or search logs is not as documented; names file, line, field and remedy."""


class EndpointError(ImageScoreError):
    """The labelling endpoint refuses what no retry would change: a wrong key, an unknown model."""

    exit_code = 3


class ModelError(ImageScoreError):
    """A model could not be trained, exported, promoted or compared; says what to do."""
