"""The model repository that Triton serves, and what makes its model (training needs the `train` extra)."""

from pathlib import Path

REPOSITORY = Path(__file__).parent / "repository"
