"""The studio in a real browser: what needs scripts, eyes, a keyboard or a phone.

Screenshots go to build/screenshots.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from stream.embedded.server import free_port
from stream.settings import Settings
from tests.conftest import NO_SKIPS
from tests.pipeline import Pipeline, listing_id, wait_for
from tests.studio import TOKEN, StudioProcess, studio

SCREENSHOTS = Path(__file__).parent.parent / "build" / "screenshots"
PHONE = {"width": 390, "height": 844}
_WAIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for this file alone: Playwright's loop must not be there when other tests run theirs."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None and not NO_SKIPS:
        pytest.skip("no Chromium to open the page with: apt-get install chromium")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_only(settings: Settings) -> Iterator[StudioProcess]:
    with studio(settings, kafka="", studio_uploads="1000/minute") as process:
        yield process


@contextmanager
def opened(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """Open a page as a new visitor; whatever the browser complains about fails the test."""
    context: BrowserContext = browser.new_context(locale="en-US", accept_downloads=True, **options)  # type: ignore[arg-type]
    context.set_default_timeout(_WAIT_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert complaints == []


def drop_in(page: Page, *photos: Path) -> None:
    """Choose files, and wait until they are scored."""
    page.set_input_files("#files", [str(photo) for photo in photos])
    expect(page.locator(".card")).to_have_count(len(photos), timeout=_WAIT_MS)


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for image in page.locator("img[loading=lazy]").all():
        image.scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def check_accessible(page: Page) -> None:
    """Fail on what axe-core calls serious or critical."""
    found = Axe().run(page).response["violations"]
    bad = [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")]
    assert not bad


def check_fits(page: Page) -> None:
    """Fail when the page has to be scrolled sideways."""
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_photos_get_their_cards_in_light_and_dark(
    browser: Browser, page_only: StudioProcess, samples: dict[str, Path], scheme: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("no photo")
    with opened(browser, page_only.url, color_scheme=scheme) as page:
        check_accessible(page)
        page.set_input_files(
            "#files", [str(samples["bag-dark"]), str(tmp_path / "notes.jpg"), str(samples["hat-good"])]
        )
        expect(page.locator(".card")).to_have_count(2, timeout=_WAIT_MS)
        expect(page.locator(".problems")).to_contain_text("notes.jpg")
        expect(page.locator(".order li").first.locator(".badge")).to_have_text("Cover")
        check_accessible(page)
        screenshot(page, f"photos-{scheme}")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(", "))) > 380) == (scheme == "light")


def test_photos_can_be_dropped_anywhere(browser: Browser, page_only: StudioProcess, samples: dict[str, Path]) -> None:
    data = list(samples["hat-good"].read_bytes())
    with opened(browser, page_only.url) as page:
        transfer = page.evaluate_handle(
            """data => { const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], "hat.jpg", { type: "image/jpeg" }));
            return transfer; }""",
            data,
        )
        for kind in ("dragenter", "dragover", "drop"):
            page.dispatch_event("h1", kind, {"dataTransfer": transfer})
        expect(page.locator(".card h2")).to_contain_text("hat.jpg", timeout=_WAIT_MS)


def test_slider_uncovers_the_fixed_photo(browser: Browser, page_only: StudioProcess, samples: dict[str, Path]) -> None:
    with opened(browser, page_only.url) as page:
        drop_in(page, samples["bag-dark"])
        tip = page.locator(".compare").first
        before = tip.locator(".before")
        width = before.bounding_box()
        assert width

        def light_at(x: float) -> float:
            """Return the mean light of what is seen at a share of the picture's width."""
            image = Image.open(io.BytesIO(tip.locator(".stack").screenshot())).convert("L")
            middle = image.crop((int(x * image.width), image.height // 3, int(x * image.width) + 8, image.height // 2))
            return sum(middle.tobytes()) / len(middle.tobytes())

        slider = tip.locator("input[type=range]")
        slider.focus()
        page.keyboard.press("End")
        dark = light_at(0.6)
        page.keyboard.press("Home")
        assert light_at(0.6) > dark + 15
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == "1"


def test_fixed_photo_is_downloaded(browser: Browser, page_only: StudioProcess, samples: dict[str, Path]) -> None:
    with opened(browser, page_only.url) as page:
        drop_in(page, samples["bag-dark"])
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the fixed photo").first.click()
        assert download.value.suggested_filename.endswith(".jpg")
        with Image.open(download.value.path()) as fixed, Image.open(samples["bag-dark"]) as given:
            assert fixed.size == given.size
            assert sum(fixed.convert("L").resize((1, 1)).tobytes()) > sum(given.convert("L").resize((1, 1)).tobytes())


def test_heat_map_is_shown_and_told(browser: Browser, page_only: StudioProcess, samples: dict[str, Path]) -> None:
    with opened(browser, page_only.url) as page:
        drop_in(page, samples["dress-cluttered"])
        button = page.get_by_role("button", name="Show what lowers the score")
        bars: list[str] = []
        page.expose_function("saw", lambda value: bars.append(value))
        page.evaluate(
            """() => { const bar = document.querySelector("figure progress");
            new MutationObserver(() => saw(String(bar.value))).observe(bar, { attributes: true }); }"""
        )
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator("figure [role=status]")).to_contain_text("Red lowers the score", timeout=_WAIT_MS)
        expect(button).to_have_attribute("aria-pressed", "true")
        address = page.locator("[data-heat]").get_attribute("data-heat")
        expect(page.locator(".where img")).to_have_attribute("src", f"{address}/heat.jpg")
        assert len(set(bars)) > 3, "the progress bar did not move"
        check_accessible(page)
        screenshot(page, "heat")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("language", ["de", "en", "es", "ja"])
def test_page_on_a_phone_in_each_language(
    browser: Browser, page_only: StudioProcess, samples: dict[str, Path], language: str
) -> None:
    with opened(browser, page_only.url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.locator(f"nav a[hreflang={language}]").click()
        expect(page.locator("html")).to_have_attribute("lang", language)
        page.wait_for_load_state()  # the script hears of files from then on
        check_fits(page)
        drop_in(page, samples["bag-dark"], samples["dress-cluttered"])
        check_fits(page)
        check_accessible(page)
        screenshot(page, f"phone-{language}")
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, .button, input:not([type=hidden])")]
            .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"""
        )
        assert not small, "too small for a thumb"


def test_everything_is_reached_by_keyboard(
    browser: Browser, page_only: StudioProcess, samples: dict[str, Path]
) -> None:
    with opened(browser, page_only.url) as page:
        drop_in(page, samples["bag-dark"])
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        expect(page.locator(".skip")).to_be_in_viewport()
        stops = "[...document.querySelectorAll('a, button, input:not([type=hidden])')]"
        wanted = page.evaluate(f"{stops}.length")
        order = [page.evaluate(f"{stops}.indexOf(document.activeElement)")]
        while len(order) < wanted:
            page.keyboard.press("Tab")
            order.append(page.evaluate(f"{stops}.indexOf(document.activeElement)"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert order == list(range(wanted))


def test_page_works_without_scripts(browser: Browser, page_only: StudioProcess, samples: dict[str, Path]) -> None:
    with opened(browser, page_only.url, java_script_enabled=False) as page:
        page.set_input_files("#files", str(samples["bag-dark"]))
        page.get_by_role("button", name="Score the photos").click()
        expect(page.locator(".card")).to_have_count(1, timeout=_WAIT_MS)
        page.get_by_role("button", name="Forget my photos").click()
        expect(page.locator(".card")).to_have_count(0)


def test_refusal_is_shown(browser: Browser, settings: Settings, samples: dict[str, Path]) -> None:
    with studio(settings, kafka="", studio_uploads="1/hour") as process:
        context = browser.new_context(locale="es-ES")
        page = context.new_page()
        page.goto(process.url)
        page.set_input_files("#files", [str(samples["hat-good"]), str(samples["bag-dark"])])
        expect(page.locator("main")).to_contain_text("Demasiadas fotos a la vez", timeout=_WAIT_MS)
        check_accessible(page)
        context.close()


class Load:
    """Publishes listings, a few dozen a second, until the block ends."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            self._pipeline.publish()


def test_operators_page_lives_while_the_stack_runs_under_load(browser: Browser, real_pipeline: Pipeline) -> None:
    host, port = real_pipeline.host, free_port()
    real_pipeline.settings = real_pipeline.settings.model_copy(update={"health_port": port})
    real_pipeline.start("worker")
    failed = real_pipeline.publish(host.url("files/later.jpg"), listing=listing_id("late"))
    real_pipeline.wait_for_dead_letter(failed)
    with (
        studio(real_pipeline.settings, studio_scorers=(f"127.0.0.1:{port}",)) as process,
        Load(real_pipeline),
        opened(browser, f"{process.url}/operators?token={TOKEN}") as page,
    ):
        expect(page.locator("#live")).to_have_text("live", timeout=_WAIT_MS)
        figure = page.locator("[data-figure=throughput]")
        wait_for(lambda: float(figure.inner_text()) > 5, "listings a second on the page")
        first = page.locator("polyline").get_attribute("points")
        wait_for(lambda: page.locator("polyline").get_attribute("points") != first, "another second on the page")
        for name in ("p99", "in-flight"):
            assert float(page.locator(f"[data-figure={name}]").inner_text().replace(",", "")) >= 0
        check_accessible(page)
        screenshot(page, "operators")
        host.put("later.jpg", host.files["good.jpg"])
        page.get_by_role("button", name=f"Replay the event of {failed}").click()
        expect(page.locator(".done")).to_have_text("1 event was produced again.", timeout=_WAIT_MS)
        real_pipeline.wait_for_record(failed)
        expect(page.locator("#letters")).to_contain_text("0 open", timeout=_WAIT_MS)
        page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        check_fits(page)
        page.emulate_media(color_scheme="dark")
        page.locator("nav a[hreflang=ja]").click()
        expect(page.locator("h1")).to_contain_text("パイプライン")
        check_accessible(page)
        screenshot(page, "operators-phone-ja")
