"""Our model, made to fail on demand, for Triton servers of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from triton_models import REPOSITORY
from triton_models.serving.versions import Repository

POISON = b"the model fails on this"
"""A photo that holds these bytes always fails."""

_FAILS = """

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        responses = super().execute(requests)
        for i, request in enumerate(requests):
            photos = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel()
            if os.path.exists({flag!r}) or any({poison!r} in photo for photo in photos):
                error = pb_utils.TritonError("out of order, for the test", pb_utils.TritonError.INTERNAL)
                responses[i] = pb_utils.InferenceResponse(error=error)
        return responses
"""


def failing_repository(folder: Path) -> tuple[Path, Path]:
    """Return a model repository in `folder`, and a file: while that is there, every request fails."""
    repository, flag = folder / "repository", folder / "fail"
    shutil.copytree(REPOSITORY, repository)
    model = Repository(repository).version(Repository(repository).served).folder / "model.py"
    model.write_text(model.read_text() + _FAILS.format(flag=str(flag), poison=POISON))
    return repository, flag
