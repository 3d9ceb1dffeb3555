"""The studio's pages, from the real process over real servers, as a visitor without scripts gets them."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from babel.messages.catalog import Message
from babel.messages.pofile import read_po
from confluent_kafka import Producer
from PIL import Image

from schemas import ASPECTS, ISSUES, PhotoErrorType
from stream.dlq import REPLAYED, entries
from stream.embedded import EmbeddedStack
from stream.embedded.server import free_port
from stream.errors import SettingsError
from stream.kafka import client_config, create_topics
from stream.settings import Settings, load
from stream.studio.drift import drift, psi
from stream.studio.guard import Guard
from stream.studio.heat import Heat
from stream.studio.sessions import Session, Sessions
from stream.studio.words import Words, wanted_language
from stream.tips import LOCALE_DIR, languages
from tests.conftest import jpeg
from tests.examples import image_score
from tests.pipeline import Pipeline, listing_id, wait_for
from tests.studio import TOKEN, StudioProcess, Visitor, photo_paths, studio


@pytest.fixture(scope="module")
def page_only(settings: Settings) -> Iterator[StudioProcess]:
    """A studio without a Kafka."""
    with studio(settings, kafka="", studio_uploads="1000/minute", max_pixels=2_000_000) as process:
        yield process


@pytest.fixture
def visitor(page_only: StudioProcess) -> Visitor:
    return Visitor(page_only.url)


def test_photos_get_scores_aspects_reasons_and_an_order(visitor: Visitor, samples: dict[str, Path]) -> None:
    page = visitor.upload_files(samples["dress-cluttered"], samples["dress-good"]).text
    scores = [int(text) for text in re.findall(r'aria-valuenow="(\d+)"', page)]
    assert len(scores) == 3  # all together, and each
    assert scores[1] < scores[2]
    assert page.count("<meter") == 2 * len(ASPECTS)
    assert "Buyers see the cover first" in page
    order = re.findall(r'<li><a href="#photo-(\d)">', page)
    assert order == ["2", "1"]


def test_a_fix_that_helps_is_shown_before_and_after_and_can_be_downloaded(
    visitor: Visitor, samples: dict[str, Path]
) -> None:
    page = visitor.upload_files(samples["bag-dark"]).text
    found = re.search(r'href="(/photos/[\w-]+)/(\w+)/download"', page)
    assert found
    before, after = re.findall(r"(?:Before|After) (\d+)", page)[:2]
    assert int(after) > int(before)
    full = visitor.http.get(f"{found[1]}/{found[2]}/download")
    assert "attachment" in full.headers["content-disposition"]
    with Image.open(io.BytesIO(full.content)) as image:
        assert not image.getexif()
    shown = visitor.http.get(f"{found[1]}/{found[2]}.jpg")
    assert shown.headers["content-type"] == "image/jpeg"
    # What was downloaded keeps the promise: dropped in again, it scores what was said.
    again = visitor.upload(("fixed.jpg", full.content)).text
    assert abs(int(re.findall(r'aria-valuenow="(\d+)"', again)[-1]) - int(after)) <= 3


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("text.jpg", b"no photo at all", PhotoErrorType.NOT_AN_IMAGE),
        ("large.jpg", b"\xff\xd8" + bytes(15 * 2**20), PhotoErrorType.TOO_LARGE),
        ("wide.png", b"", PhotoErrorType.TOO_MANY_PIXELS),
        ("cut.jpg", b"", PhotoErrorType.UNREADABLE),
    ],
)
def test_what_is_no_photo_is_refused_in_the_visitors_language(
    page_only: StudioProcess, photo: bytes, name: str, data: bytes, kind: PhotoErrorType
) -> None:
    if kind is PhotoErrorType.TOO_MANY_PIXELS:
        wide = io.BytesIO()
        Image.new("L", (2001, 1000)).save(wide, "PNG")
        data = wide.getvalue()
    if kind is PhotoErrorType.UNREADABLE:
        data = photo[:300]
    page = Visitor(page_only.url, **{"Accept-Language": "de-AT,en;q=0.5"}).upload((name, data)).text
    assert Words("de")(f"photo_{kind}") in page
    assert name in page
    assert 'class="card"' not in page


def test_names_of_files_are_shown_as_text(visitor: Visitor, photo: bytes) -> None:
    page = visitor.upload(("<script>alert(1)</script>.jpg", photo)).text
    assert "<script>alert" not in page


def test_room_in_a_session_is_limited(settings: Settings, photo: bytes) -> None:
    with studio(settings, kafka="", studio_photos=2) as process:
        page = Visitor(process.url).upload(*((f"{n}.jpg", photo) for n in range(3))).text
    assert page.count('class="card"') == 2
    assert Words("en")("photo_too_many") in page


def test_a_visitor_sees_only_their_own_photos(page_only: StudioProcess, visitor: Visitor, photo: bytes) -> None:
    (path,) = photo_paths(visitor.upload(("mine.jpg", photo)).text)
    assert visitor.http.get(f"{path}/view.jpg").status_code == 200
    other = Visitor(page_only.url)
    assert 'class="card"' not in other.page()
    assert other.http.get(f"{path}/view.jpg").status_code == 404


def test_photos_are_forgotten_when_asked_to(visitor: Visitor, photo: bytes) -> None:
    (path,) = photo_paths(visitor.upload(("mine.jpg", photo)).text)
    assert 'class="card"' not in visitor.send("/forget").text
    assert visitor.http.get(f"{path}/view.jpg").status_code == 404


def test_one_photo_can_be_removed(visitor: Visitor, photo: bytes) -> None:
    first, second = photo_paths(visitor.upload(("1.jpg", photo), ("2.jpg", photo)).text)
    assert photo_paths(visitor.send(f"{first}/remove").text) == [second]


def test_photos_are_forgotten_when_the_session_is_idle(settings: Settings, photo: bytes) -> None:
    with studio(settings, kafka="", studio_minutes=0.02) as process:
        visitor = Visitor(process.url)
        assert 'class="card"' in visitor.upload(("mine.jpg", photo)).text
        time.sleep(1.5)
        assert 'class="card"' not in visitor.page()


def test_uploads_are_kept_only_where_configured_and_the_page_says_so(
    settings: Settings, photo: bytes, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    with studio(settings, kafka="", studio_keep=str(kept)) as process:
        visitor = Visitor(process.url)
        assert Words("en")("kept") in visitor.page()
        visitor.upload(("../../mine.jpg", photo))
    (file,) = kept.iterdir()
    assert file.read_bytes() == photo


@pytest.mark.parametrize("token", ["none", "0" * 64, "é"])
def test_a_form_without_its_token_is_refused(visitor: Visitor, photo: bytes, token: str) -> None:
    visitor.page()
    answer = visitor.upload(("mine.jpg", photo), token=token)
    assert answer.status_code == 403
    assert Words("en")("refused_form") in answer.text
    assert 'class="card"' not in visitor.page()


def test_a_token_of_another_session_is_refused(page_only: StudioProcess, visitor: Visitor, photo: bytes) -> None:
    visitor.page()
    assert visitor.upload(("mine.jpg", photo), token=Visitor(page_only.url).token()).status_code == 403


def test_too_many_uploads_from_one_address_are_refused(settings: Settings, photo: bytes) -> None:
    with studio(settings, kafka="", studio_uploads="3/hour") as process:
        visitor = Visitor(process.url)
        assert visitor.upload(*((f"{n}.jpg", photo) for n in range(3))).status_code == 200
        answer = Visitor(process.url).upload(("mine.jpg", photo))
    assert answer.status_code == 429
    assert Words("en")("refused_rate") in answer.text


def test_a_body_over_the_limit_is_refused(settings: Settings) -> None:
    with studio(settings, kafka="", max_photo_bytes=2**20) as process:
        visitor = Visitor(process.url)
        answer = visitor.upload(*((f"{n}.jpg", bytes(2**20)) for n in range(6)))
    assert answer.status_code == 413


def test_every_answer_has_strict_headers(visitor: Visitor) -> None:
    for path in ("/", "/static/studio.css", "/no-such-page", "/photos/x/view.jpg"):
        headers = visitor.http.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    cookie = httpx.get(str(visitor.http.base_url), trust_env=False).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_embedding_is_possible_where_configured(settings: Settings) -> None:
    with studio(settings, kafka="", studio_embed="https://market.example") as process:
        headers = httpx.get(process.url, trust_env=False).headers
    assert "frame-ancestors https://market.example" in headers["content-security-policy"]
    assert "SameSite=none" in headers["set-cookie"]
    assert "Secure" in headers["set-cookie"]


def test_heat_is_told_step_by_step_and_then_drawn(visitor: Visitor, samples: dict[str, Path]) -> None:
    (path,) = photo_paths(visitor.upload_files(samples["dress-cluttered"]).text)
    told = visitor.http.get(f"{path}/heat").text
    shares = [
        float(text)
        for text in re.findall(r"event: progress\ndata: ([\d.]+)|data: ([\d.]+)\n", told)
        for text in text
        if text
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    found = json.loads(told.split("event: found")[1].split("data: ")[1].split("\n")[0])
    assert found["red"]
    assert "Red lowers the score" in found["text"]
    picture = visitor.http.get(f"{path}/heat.jpg").content
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    assert (pixels[..., 0] - pixels[..., 1]).max() > 60
    assert found["text"] in visitor.page()


def test_heat_says_where() -> None:
    costs = np.zeros((9, 6))
    costs[0, 5], costs[8, 0] = 0.02, 0.01
    heat = Heat(costs)
    assert heat.places() == [(0, 2), (2, 0)]
    assert not Heat(costs * 0.1).found
    drawn = np.asarray(Image.open(io.BytesIO(heat.laid_over(Image.new("RGB", (60, 90), "grey")))), int)
    assert drawn[2, 57, 0] - drawn[2, 57, 1] > 60
    assert abs(drawn[45, 30, 0] - drawn[45, 30, 1]) < 10


def test_heat_finds_what_lies_beside_the_item(settings: Settings, visitor: Visitor, samples: dict[str, Path]) -> None:
    (path,) = photo_paths(visitor.upload_files(samples["hat-good"]).text)
    clean = visitor.http.get(f"{path}/heat").text
    with Image.open(samples["hat-good"]) as image:
        littered = image.convert("RGB")
    width, height = littered.size
    box = (0, int(0.7 * height), width // 3, height)
    noise = np.random.default_rng(0).integers(0, 255, (12, 8, 3), np.uint8)
    littered.paste(Image.fromarray(noise).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST), box)
    page = visitor.upload(("littered.jpg", jpeg(littered))).text
    told = visitor.http.get(f"{photo_paths(page)[-1]}/heat").text
    assert "bottom left" in told
    assert "bottom left" not in clean


def test_the_page_speaks_the_languages_it_has(page_only: StudioProcess) -> None:
    for language, accept in {"ja": "ja-JP,ja;q=0.9", "de": "de", "es": "fr,es-MX", "en": "fr"}.items():
        page = Visitor(page_only.url, **{"Accept-Language": accept}).page()
        assert f'<html lang="{language}">' in page
        assert Words(language)("title") in page


def test_a_chosen_language_is_kept(visitor: Visitor) -> None:
    visitor.page("/?lang=ja")
    assert '<html lang="ja">' in visitor.page("/")


@pytest.mark.parametrize(
    ("chosen", "accept", "language"),
    [("", "", "en"), ("xx", "de-CH", "de"), ("es", "de", "es"), ("", "," * 500 + "-;q=x", "en"), ("", "ja_JP", "ja")],
)
def test_language_of_a_visitor(chosen: str, accept: str, language: str) -> None:
    assert wanted_language(chosen, accept) == language


def placeholders(message: Message) -> list[set[str]]:
    """Return those of each plural form."""
    forms = [message.string] if isinstance(message.string, str) else list(message.string or ())
    assert all(forms), message.id
    return [set(re.findall(r"{\w+}", form)) for form in forms]


@pytest.mark.parametrize("language", languages())
def test_catalogues_have_every_text_and_its_placeholders(language: str) -> None:
    with (LOCALE_DIR / "en" / "studio.po").open("rb") as source:
        english = {message.id: message for message in read_po(source)}
    with (LOCALE_DIR / language / "studio.po").open("rb") as source:
        ours = {message.id: message for message in read_po(source, locale=language)}
    assert ours.keys() == english.keys()
    for key, message in ours.items():
        if not key:
            continue
        wanted = placeholders(english[key])[-1]
        assert all(found == wanted for found in placeholders(message)), key


def test_every_text_that_the_pages_ask_for_is_there() -> None:
    with (LOCALE_DIR / "en" / "studio.po").open("rb") as source:
        known = {m.id if isinstance(m.id, str) else m.id[0] for m in read_po(source) if m.id}
    folder = LOCALE_DIR.parent / "studio"
    asked = {name for path in folder.glob("templates/*") for name in re.findall(r'\bt\("(\w+)"[,)]', path.read_text())}
    asked |= {name for path in folder.glob("*.py") for name in re.findall(r'words\("(\w+)"[,)]', path.read_text())}
    asked |= {name for path in folder.glob("*.py") for name in re.findall(r'"(refused_\w+)"', path.read_text())}
    asked |= {f"aspect_{aspect}" for aspect in ASPECTS} | {f"issue_{issue}" for issue in ISSUES}
    asked |= {f"photo_{kind}" for kind in PhotoErrorType}
    assert asked <= known, asked - known


def test_sessions_over_the_memory_limit_end_the_idlest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "held", property(lambda session: 60))
    sessions = Sessions(minutes=30, memory=100)
    sessions.open("first")
    sessions.open("second")
    sessions.sweep()
    assert sessions.get("first") is None
    assert sessions.get("second") is not None


def test_a_wrong_rate_is_a_clear_error() -> None:
    with pytest.raises(SettingsError, match=r"'often' is no rate.*IMAGE_SCORE_STUDIO_UPLOADS"):
        Guard(load(studio_uploads="often"))


def test_psi_by_hand() -> None:
    # (0.5 - 0.25) ln 2 + (0.5 - 0.75) ln (2 / 3)
    assert psi([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))
    assert psi([0.3, 0.7], [0.3, 0.7]) == 0


def test_drift_levels() -> None:
    generator = np.random.default_rng(0)
    low, high = generator.beta(2, 4, 2000).tolist(), generator.beta(4, 2, 2000).tolist()
    assert drift(low, low).level == "none"
    assert drift(low, high).level == "large"
    assert drift([], high).level == "unknown"


@pytest.fixture
def live(real_pipeline: Pipeline) -> Iterator[StudioProcess]:
    """A studio beside a pipeline on real Kafka."""
    with studio(real_pipeline.settings) as process:
        yield process


def operator(process: StudioProcess) -> Visitor:
    found = Visitor(process.url)
    assert "token=" not in str(found.http.get("/operators", params={"token": TOKEN}, follow_redirects=True).url)
    return found


def figure(page: str, name: str) -> str:
    found = re.search(rf'data-figure="{name}">([^<]*)<', page)
    assert found, name
    return found[1]


def test_operators_see_what_runs_and_replay_what_failed(real_pipeline: Pipeline, live: StudioProcess) -> None:
    visitor, host = operator(live), real_pipeline.host
    real_pipeline.start("worker")
    for _ in range(20):
        real_pipeline.publish()
    failed = real_pipeline.publish(host.url("files/comes-later.jpg"), listing=listing_id("late"))
    real_pipeline.wait_for_dead_letter(failed)
    page = wait_for(lambda: _page_with(visitor, failed), "the dead letter on the page")
    assert figure(page, "lag") == "0"
    assert float(figure(page, "p50")) > 0
    assert float(figure(page, "p50")) <= float(figure(page, "p99").replace(",", ""))
    assert "no_scorable_photo" in page
    host.put("comes-later.jpg", host.files["good.jpg"])
    place = re.findall(r'name="place" value="([\d:]+)"', page)[0]
    done = visitor.send("/operators/replay", page="/operators", place=place)
    assert "1 event was produced again." in done.text
    real_pipeline.wait_for_record(failed)
    assert [entry.state for entry in entries(real_pipeline.settings)] == [REPLAYED]
    wait_for(lambda: failed not in visitor.page("/operators"), "the replayed letter to leave the page")


def _page_with(visitor: Visitor, text: str) -> str | None:
    page = visitor.page("/operators")
    return page if text in page and figure(page, "lag") == "0" and figure(page, "p50") != "-" else None


def test_figures_come_by_server_sent_events(real_pipeline: Pipeline, live: StudioProcess) -> None:
    visitor = operator(live)
    real_pipeline.publish()  # nobody scores it
    seen: list[str] = []
    with visitor.http.stream("GET", "/operators/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            seen += re.findall(r'data-figure="lag">([^<]*)<', line)
            if "1" in seen:
                break
            assert len(seen) < 30


def test_in_flight_is_what_the_scorers_say(real_pipeline: Pipeline) -> None:
    port = free_port()
    real_pipeline.settings = real_pipeline.settings.model_copy(
        update={"health_port": port, "fetch_timeout_s": 30.0, "drain_timeout_s": 1.0}
    )
    real_pipeline.start("worker")
    real_pipeline.publish(real_pipeline.host.url("hang"))
    own = {"studio_scorers": (f"127.0.0.1:{port}", "127.0.0.1:9")}
    with studio(real_pipeline.settings, **own) as process:
        visitor = operator(process)
        wait_for(lambda: figure(visitor.page("/operators"), "in-flight") == "1", "one record in flight")
        assert "127.0.0.1:9: does not answer" in visitor.page("/operators")


def test_topics_may_be_made_later(real_pipeline: Pipeline) -> None:
    later = {"scores_topic": listing_id("scores"), "dlq_topic": listing_id("dlq")}
    settings = real_pipeline.settings.model_copy(update=later)
    with studio(settings) as process:
        visitor = operator(process)
        wait_for(lambda: figure(visitor.page("/operators"), "lag") == "0", "the lag")
        create_topics(settings)
        producer = Producer(client_config(settings))
        producer.produce(settings.scores_topic, key="m1", value=image_score().to_json())
        assert producer.flush(10) == 0
        wait_for(lambda: figure(visitor.page("/operators"), "p50") != "-", "the score on the page")


def test_drift_is_told_from_last_weeks_scores(real_pipeline: Pipeline) -> None:
    producer = Producer(client_config(real_pipeline.settings))
    now = time.time()
    for number in range(400):
        week = number < 200
        score = image_score((0.3 if week else 0.8,)).model_copy(update={"score": 0.3 if week else 0.8})
        at = round((now - (3 * 86_400 if week else 60)) * 1000)
        topic = real_pipeline.settings.scores_topic
        producer.produce(topic, key=f"m{number}", value=score.to_json(), timestamp=at)
    assert producer.flush(10) == 0
    with studio(real_pipeline.settings) as process:
        visitor = operator(process)
        page = wait_for(lambda: _drifted(visitor), "the drift")
    assert "large drift" in page
    assert "last day (200)" in page
    assert "week before (200)" in page


def _drifted(visitor: Visitor) -> str | None:
    page = visitor.page("/operators")
    return page if "PSI" in page and "last day (200)" in page else None


def test_a_listing_of_the_running_stack_is_opened(real_pipeline: Pipeline, live: StudioProcess) -> None:
    real_pipeline.start("worker")
    listing = real_pipeline.publish(real_pipeline.host.good, real_pipeline.host.good)
    real_pipeline.wait_for_score(listing)
    visitor = Visitor(live.url)
    page = wait_for(lambda: _opened(visitor, listing), "the listing")
    assert f"Listing {listing}" in page
    assert page.count('class="card"') == 2
    assert visitor.send("/listing", listing_id="no-such").status_code == 404
    assert visitor.send("/listing", listing_id="not an id").status_code == 422


def _opened(visitor: Visitor, listing: str) -> str | None:
    answer = visitor.send("/listing", listing_id=listing)
    return answer.text if answer.status_code == 200 else None


def test_operators_page_is_closed_to_others(live: StudioProcess) -> None:
    visitor = Visitor(live.url)
    visitor.page()
    assert visitor.http.get("/operators").status_code == 403
    assert visitor.http.get("/operators/live").text == ""
    assert visitor.http.post("/operators/replay", data={"token": visitor.token()}).status_code == 403
    assert visitor.http.get("/operators", params={"token": "guess"}).status_code == 403
    answers = [visitor.http.get("/operators", params={"token": f"guess{n}"}).status_code for n in range(12)]
    assert answers[-1] == 429


def test_the_page_says_that_kafka_is_away(settings: Settings) -> None:
    with EmbeddedStack(load(triton=settings.triton), redis=False) as own, studio(own.settings) as process:
        visitor = operator(process)
        wait_for(lambda: figure(visitor.page("/operators"), "lag") == "0", "the lag")
        assert own.kafka
        own.kafka.stop()
        wait_for(lambda: "These figures stand still" in visitor.page("/operators"), "the problem", 60)
