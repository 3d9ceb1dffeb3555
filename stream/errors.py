"""The errors of the online path.

ImageScoreError             shown to a person as one line, without a traceback
  SettingsError             a setting is missing or wrong
  EmbeddedError             an embedded server could not be started
  DependencyError           an external server does not answer
PhotoRejected               a photo cannot be scored, for good (recorded per photo)
PhotoUnavailable            a photo may be there later (retried, then recorded)
ServiceUnavailable          Triton or Redis may be there later (retried until it is)
"""

from __future__ import annotations

from schemas import PhotoError, PhotoErrorType


class ImageScoreError(Exception):
    """An error whose message tells the user what to do."""


class SettingsError(ImageScoreError):
    pass


class EmbeddedError(ImageScoreError):
    pass


class DependencyError(ImageScoreError):
    pass


class PhotoRejected(Exception):
    """A photo that will not become scorable by trying again."""

    def __init__(self, type: PhotoErrorType, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.error = PhotoError(type=type, message=message[:1000], attempts=attempts)


class PhotoUnavailable(Exception):
    """A photo that could not be had just now: a timeout, a 5xx answer, a refused connection."""


class ServiceUnavailable(Exception):
    """Triton or Redis cannot answer just now."""
