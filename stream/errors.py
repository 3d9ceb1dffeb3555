"""The errors of the online path.

ImageScoreError             shown to a person as one line, without a traceback; has the command's exit code
  SettingsError             a setting is missing or wrong
  EmbeddedError             an embedded server could not be started
  DependencyError           an external server does not answer
  TooManyDeadLettersError   the scorer stopped rather than drain its topic into the dead letters
  DrainError                the scorer was stopped and could not finish all in time
  FencedError               another scorer took over this one's name
PhotoRejected               a photo cannot be scored, for good (recorded per photo)
PhotoUnavailable            a photo may be there later (retried, then recorded)
ServiceUnavailable          Triton or Redis may be there later (retried until it is)
"""

from __future__ import annotations

from schemas import PhotoError, PhotoErrorType


class ImageScoreError(Exception):
    """An error whose message tells the user what to do."""

    exit_code = 1


class SettingsError(ImageScoreError):
    exit_code = 2


class EmbeddedError(ImageScoreError):
    pass


class DependencyError(ImageScoreError):
    exit_code = 3


class TooManyDeadLettersError(ImageScoreError):
    exit_code = 4


class DrainError(ImageScoreError):
    exit_code = 5


class FencedError(ImageScoreError):
    exit_code = 6


class PhotoRejected(Exception):
    """A photo that will not become scorable by trying again."""

    def __init__(self, type: PhotoErrorType, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.error = PhotoError(type=type, message=message[:1000], attempts=attempts)


class PhotoUnavailable(Exception):
    """A photo that could not be had just now: a timeout, a 5xx answer, a refused connection."""


class ServiceUnavailable(Exception):
    """Triton or Redis cannot answer just now."""
