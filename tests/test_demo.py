"""The demo, as `make demo` runs it: on the drawn photos always, on real ones where they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

from tests.test_cli import run


def check_sheet(out: Path, photos: int) -> str:
    page = (out / "contact-sheet.html").read_text()
    scores = [float(text) for text in re.findall(r'class="score"[^>]*>(\d\.\d\d)', page)]
    assert scores == sorted(scores, reverse=True)
    assert page.count("data:image/jpeg;base64,") == photos
    assert not re.search(r'(src|href)="(?!data:)', page), "the page must be self-contained"
    with Image.open(out / "contact-sheet.png") as picture:
        assert picture.height > 400
    return page


def test_demo_on_drawn_photos(tmp_path: Path) -> None:
    done = run("demo", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "t-shirt-good" in text
    assert f"{tmp_path}/contact-sheet.png" in text.replace("\n", "")
    page = check_sheet(tmp_path, 48)
    assert "drawn by the project itself" in page
    assert "The background of photo 1 is busy." in page


def test_demo_on_own_photos_a_subfolder_is_a_listing(tmp_path: Path, samples: dict[str, Path]) -> None:
    folder = tmp_path / "photos"
    (folder / "my dress").mkdir(parents=True)
    shutil.copy(samples["dress-cluttered"], folder / "my dress" / "1.jpg")
    shutil.copy(samples["dress-good"], folder / "my dress" / "2.jpg")
    shutil.copy(samples["hat-good"], folder / "hat.jpg")
    (folder / "broken.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("ignored")
    done = run("demo", "--photos", str(folder), "--out", str(tmp_path / "out"), "--locale", "ja")
    assert done.returncode == 0, done.stderr.decode()
    page = check_sheet(tmp_path / "out", 4)
    assert "drawn by the project itself" not in page
    assert "2枚目を表紙の写真にしましょう" in page
    assert "not_an_image" in page


def test_demo_on_real_photos(tmp_path: Path, shared_photos: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = sorted((shared_photos / "validation").rglob("*.jpg"))[::10]
    for path in paths:
        shutil.copy(path, folder)
    done = run("demo", "--photos", str(folder), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr.decode()
    check_sheet(tmp_path / "out", len(paths))
