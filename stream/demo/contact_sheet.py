"""The contact sheet: photos sorted by score with the tips under them, as PNG and as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pillow_heif
from jinja2 import Environment, FileSystemLoader
from PIL import Image, ImageDraw, ImageFont, ImageOps

from schemas import Aspect, DeadLetter, FailedPhoto, ImageScore, SellerHint

pillow_heif.register_heif_opener()

THUMB = (240, 320)
_CARD = (264, 460)
_COLUMNS = 6
_TITLE = "Image Score: photos by score"
_DRAWN = (
    "These sample photos are drawn by the project itself, each item once well taken and once with each of seven flaws."
)


@dataclass(frozen=True)
class Card:
    """One photo on the sheet; `score` is None when it could not be scored, and `problem` says why."""

    listing: str
    path: Path
    score: float | None
    aspects: dict[Aspect, float]
    tips: tuple[str, ...]
    problem: str = ""

    @property
    def color(self) -> str:
        """From red (0) by amber to green (1), as #rrggbb."""
        s = self.score or 0.0
        red, green = (200, int(60 + 240 * s)) if s < 0.5 else (int(200 - 300 * (s - 0.5)), 160)
        return f"#{max(red, 40):02x}{min(green, 165):02x}3c"


@dataclass(frozen=True)
class Sheet:
    cards: list[Card]
    drawn: bool

    @classmethod
    def of(
        cls,
        scores: dict[str, ImageScore],
        hints: dict[str, SellerHint],
        dead: dict[str, DeadLetter],
        files: dict[str, list[Path]],
        drawn: bool,
    ) -> Sheet:
        """Return the cards of all photos, best first, those without a score last."""
        cards = []
        for listing_id, paths in files.items():
            name = listing_id.rsplit(".", 1)[0]
            score, letter = scores.get(listing_id), dead.get(listing_id)
            tips = hints[listing_id].tips if listing_id in hints else ()
            for photo in score.photos if score else ():
                words = tuple(tip.text for tip in tips if tip.photo_id == photo.photo_id)
                cards.append(Card(name, paths[photo.position], photo.score, photo.aspects, words))
            failed: tuple[FailedPhoto, ...] = score.failed if score else letter.photos if letter else ()
            for miss in failed:
                problem = f"{miss.error.type}: {miss.error.message}"
                cards.append(Card(name, paths[miss.position], None, {}, (), problem))
        return cls(sorted(cards, key=lambda card: -1.0 if card.score is None else card.score, reverse=True), drawn)


def _thumb(path: Path) -> Image.Image:
    """Return the photo within 240 x 320, upright; a grey field when it cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * THUMB[0], 2 * THUMB[1]))
            return ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), THUMB)
    except Exception:  # whatever a broken file makes a decoder raise
        return Image.new("RGB", THUMB, "#888888")


def write_html(sheet: Sheet, path: Path) -> Path:
    """Write the page, photos included as data URLs; return its absolute path."""
    thumbs = []
    for card in sheet.cards:
        data = io.BytesIO()
        _thumb(card.path).save(data, "JPEG", quality=85)
        thumbs.append("data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode())
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("contact_sheet.html").render(
        title=_TITLE, note=_DRAWN if sheet.drawn else "", cards=list(zip(sheet.cards, thumbs, strict=True))
    )
    path.write_text(page, encoding="utf-8")
    return path.resolve()


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """Return Pillow's own font, or for other scripts one that the system has; None where it has none."""
    if text.isascii():
        return ImageFont.load_default(size)
    if shutil.which("fc-match") is None:
        return None
    found = subprocess.run(
        ["fc-match", "-f", "%{file}\n%{index}\n%{lang}", ":lang=ja"], capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if len(found) != 3 or "ja" not in found[2].split("|"):
        return None
    return ImageFont.truetype(found[0], size, index=int(found[1] or 0))


def write_png(sheet: Sheet, path: Path) -> Path:
    """Write the picture; return its absolute path. Tips whose script no font here can draw are left to the page."""
    rows, columns = -(-len(sheet.cards) // _COLUMNS), min(len(sheet.cards), _COLUMNS)
    width, height = max(columns, 3) * _CARD[0] + 24, rows * _CARD[1] + 96
    picture = Image.new("RGB", (width, height), "#f6f5f2")
    draw = ImageDraw.Draw(picture)
    draw.text((24, 20), _TITLE, fill="#222222", font=ImageFont.load_default(28))
    if sheet.drawn:
        draw.text((24, 58), _DRAWN, fill="#555555", font=ImageFont.load_default(16))
    tips_font = _font(14, "".join(tip for card in sheet.cards for tip in card.tips))
    for i, card in enumerate(sheet.cards):
        _draw_card(picture, card, 24 + i % _COLUMNS * _CARD[0], 96 + i // _COLUMNS * _CARD[1], tips_font)
    picture.save(path, optimize=True)
    return path.resolve()


def _draw_card(
    picture: Image.Image,
    card: Card,
    left: int,
    top: int,
    tips_font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None,
) -> None:
    draw, thumb = ImageDraw.Draw(picture), _thumb(card.path)
    picture.paste(thumb, (left + (THUMB[0] - thumb.width) // 2, top + (THUMB[1] - thumb.height) // 2))
    label = "no score" if card.score is None else f"{card.score:.2f}"
    draw.rounded_rectangle([left + 8, top + 8, left + (96 if card.score is None else 66), top + 36], 6, fill=card.color)
    draw.text((left + 16, top + 11), label, fill="#111111", font=ImageFont.load_default(19))
    draw.text((left, top + THUMB[1] + 8), card.listing[:30], fill="#222222", font=ImageFont.load_default(15))
    words, font = (card.problem[:180], ImageFont.load_default(14)) if card.problem else (" ".join(card.tips), tips_font)
    if font is None and card.tips:
        words, font = "(tips: see the HTML page)", ImageFont.load_default(14)
    lines = textwrap.wrap(words, 34 if words.isascii() else 17)[:8]
    draw.multiline_text((left, top + THUMB[1] + 30), "\n".join(lines), fill="#555555", font=font, spacing=3)
