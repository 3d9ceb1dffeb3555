"""The versions of a model in a Triton repository, and the line of config.pbtxt that says which one is served."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_models import REPOSITORY
from triton_models.errors import ModelError

MODEL = "image_score"
SHADOW = "image_score_shadow"
"""The model that a candidate version is served as, beside the one that answers."""

_POLICY = re.compile(r"^version_policy: \{ specific: \{ versions: \[ (\d+) \] \} \}$", re.M)
_PREVIOUS = re.compile(r'^parameters: \{ key: "previous_version" value: \{ string_value: "(\d+)" \} \}$', re.M)


@dataclass(frozen=True)
class Version:
    number: int
    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        path = self.folder / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else {}


class Repository:
    """A Triton model repository that holds our model.

    Raises:
        ModelError: it does not.
    """

    def __init__(self, path: Path = REPOSITORY) -> None:
        self.path = path
        self.model = path / MODEL
        self.config = self.model / "config.pbtxt"
        if not self.config.is_file():
            raise ModelError(f"{str(path)!r} is no repository with {MODEL}/config.pbtxt: give --repository")

    def versions(self) -> list[Version]:
        """Return the versions that can be served, oldest first."""
        found = [p for p in self.model.iterdir() if p.name.isdigit() and (p / "model.onnx").is_file()]
        return [Version(int(p.name), p) for p in sorted(found, key=lambda p: int(p.name))]

    def version(self, number: int) -> Version:
        """Return one version.

        Raises:
            ModelError: it is not there; names those that are.
        """
        for version in self.versions():
            if version.number == number:
                return version
        names = ", ".join(str(version.number) for version in self.versions())
        raise ModelError(f"version {number} is not in {str(self.model)!r}: it has {names or 'none'}")

    def folder_for(self, number: int | None) -> Path:
        """Return the folder of a version that is to be written, by default the next one.

        Raises:
            ModelError: it is there already.
        """
        versions = self.versions()
        number = number or (versions[-1].number + 1 if versions else 1)
        folder = self.model / str(number)
        if folder.exists():
            raise ModelError(f"version {number} is in {str(self.model)!r} already: give another --version")
        return folder

    @property
    def served(self) -> int:
        """The version that is served: the one named in config.pbtxt, else the newest."""
        found = _POLICY.search(self.config.read_text())
        if found:
            return int(found[1])
        versions = self.versions()
        if not versions:
            raise ModelError(f"{str(self.model)!r} has no version: `image-score export` writes one")
        return versions[-1].number

    @property
    def previous(self) -> int | None:
        """The version that was served before; what a rollback returns to."""
        found = _PREVIOUS.search(self.config.read_text())
        return int(found[1]) if found else None

    def serve(self, number: int) -> None:
        """Write that this version is to be served, and remember the one before; Triton must be told (control.py)."""
        self.version(number)
        self._write(number, self.served)

    def _write(self, number: int, before: int | None) -> None:
        text = _without_lines(self.config.read_text())
        text += f"version_policy: {{ specific: {{ versions: [ {number} ] }} }}\n"
        if before is not None:
            text += f'parameters: {{ key: "previous_version" value: {{ string_value: "{before}" }} }}\n'
        part = self.config.with_suffix(".part")
        part.write_text(text)
        part.replace(self.config)

    def pin(self) -> None:
        """Say in config.pbtxt which version is served, so that a newer one is not served by just being there."""
        if not _POLICY.search(self.config.read_text()):
            self._write(self.served, None)

    def add_shadow(self, number: int) -> None:
        """Put a copy of a version beside the model, as a model of its own."""
        version = self.version(number)
        self.remove_shadow()
        folder = self.path / SHADOW
        shutil.copytree(version.folder, folder / str(number))
        (folder / "config.pbtxt").write_text(_without_lines(self.config.read_text()))

    def remove_shadow(self) -> None:
        shutil.rmtree(self.path / SHADOW, ignore_errors=True)


def _without_lines(config: str) -> str:
    """Return a config.pbtxt without the lines that say what is served."""
    return _PREVIOUS.sub("", _POLICY.sub("", config)).rstrip("\n") + "\n"
