"""The page in a real browser, and the parts of the server that are there for it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from slime_vlm.pages.browser.printing import find_browser
from tests.serving.conftest import Loaded, Running, data_uri, drawn, png, running

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
QUESTION = "What is the amount due?"
# Where "$87.84" is on the invoice, and a place without print: left, top, right and bottom as shares of its sides.
VALUE = (0.826, 0.814, 0.957, 0.844)
BLANK = (0.10, 0.60, 0.40, 0.90)
MILLISECONDS = 90_000

IN_BROWSER = pytest.mark.skipif(find_browser() is None, reason="no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of this module only: while it runs, asyncio cannot start another loop in this thread.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"]) as found,
    ):
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    found.set_default_timeout(MILLISECONDS)
    yield found
    found.close()


@pytest.fixture
def new_page(context: BrowserContext) -> Iterator[Callable[[str], Page]]:
    """Open pages. What they complain about, and requests to other hosts, fail the test."""
    complaints: list[str] = []

    def open_page(url: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # Refusals and lost connections are logged by the browser itself; the page handles them.
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type == "error" and "Failed to load resource" not in said.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "blob:", "data:"))
                else complaints.append(f"request to {request.url}")
            ),
        )
        page.goto(url)
        return page

    yield open_page
    assert not complaints


def choose(page: Page, name: str, content: bytes, kind: str = "image/png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def ask(page: Page, question: str) -> Locator:
    """Ask, wait for the end of the answer, and return its card."""
    count = page.locator("#turns > li").count()
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    turn = page.locator("#turns > li").nth(count)
    expect(turn.locator(".facts").last).to_contain_text(" ms", timeout=MILLISECONDS)
    return turn.locator(".run")


def shares(picture: Image.Image, image_size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the pixels of a part of the image, which lies as large as it can in the middle of a picture."""
    height, width = image_size
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    edges = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
    x0, y0, x1, y1 = (round(start + edge * scale) for start, edge in zip((left, top, left, top), edges, strict=True))
    return np.asarray(picture.convert("RGB"), np.float64)[y0:y1, x0:x1]


def view(page: Page, strength: int) -> Image.Image:
    page.locator("#fade").fill(str(strength))
    # Two frames, so that what was drawn is on the screen.
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return Image.open(io.BytesIO(page.locator("#viewer").screenshot()))


def assert_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert not [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in ("serious", "critical")]


@IN_BROWSER
@pytest.mark.slow
@pytest.mark.parametrize(("server", "answer"), [("nano_server", "$87.84"), ("pages_server", "13 April 2025")])
def test_the_example_suits_the_model(
    server: str, answer: str, new_page: Callable[[str], Page], request: pytest.FixtureRequest
) -> None:
    page = new_page(request.getfixturevalue(server).url)
    page.get_by_role("button", name="Take the example").click()
    expect(page.locator("#question")).not_to_have_value("", timeout=MILLISECONDS)
    page.locator("#question").press("Enter")
    expect(page.locator("#turns .answer")).to_have_text(answer, timeout=MILLISECONDS)


@IN_BROWSER
@pytest.mark.slow
def test_ask_and_see_where_the_model_looked(
    nano_server: Running, new_page: Callable[[str], Page], tmp_path: Path
) -> None:
    page = new_page(nano_server.url)
    assert_accessible(page)
    choose(page, "invoice.png", INVOICE.read_bytes())
    with page.expect_response("**/v1/chat/completions") as streamed:
        card = ask(page, QUESTION)
    assert streamed.value.headers["content-type"].startswith("text/event-stream")
    expect(card.locator(".answer")).to_have_text("$87.84")
    expect(page.locator("#summary")).to_contain_text("of 384 local tokens were kept. The highest score is at row")

    # The heat lies over the value that was asked for, and the rest is grey.
    with Image.open(INVOICE) as opened:
        size = (opened.height, opened.width)
    plain, heated = view(page, 0), view(page, 100)

    def warmth(picture: Image.Image, box: tuple[float, float, float, float]) -> float:
        part = shares(picture, size, box)
        return float((part[..., 0] - part[..., 2]).mean())

    assert warmth(heated, VALUE) > warmth(plain, VALUE) + 40
    assert warmth(heated, BLANK) < warmth(plain, BLANK) + 1

    # The token under the pointer, and the keys that walk from the best one.
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#token")).to_have_text(re.compile(r"row \d+, column \d+: score -?\d\.\d{3}, rank \d+ of 384"))
    page.mouse.move(5, 5)
    page.locator("#zoom-all").focus()
    page.keyboard.press(".")
    expect(page.locator("#token")).to_contain_text("rank 1 of 384, kept")
    page.keyboard.press("h")
    expect(page.locator("#fade")).to_have_value("0")
    page.keyboard.press("h")

    # Budgets side by side: the image is not encoded again.
    before = nano_server.counted("encoded_images")
    view(page, 75)
    page.get_by_role("button", name="Compare").click()
    cards = page.locator(".run")
    expect(cards.locator(".facts", has_text=" ms")).to_have_count(5, timeout=MILLISECONDS)
    for title, tokens in (("Budget 16", "16"), ("Budget 64", "64"), ("Budget 256", "256"), ("All tokens", "384")):
        expect(cards.filter(has_text=title)).to_contain_text(f"{tokens} of 384 local")
    assert nano_server.counted("encoded_images") == before
    cards.first.click()

    # A further question goes with the conversation.
    with page.expect_request("**/v1/chat/completions") as sent:
        expect(ask(page, "What is the balance?").locator(".answer")).to_have_text("41.97")
    messages = json.loads(sent.value.post_data or "")["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "$87.84"

    # What people take along.
    page.get_by_role("button", name="Copy as Markdown").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert "**What is the balance?**\n\n41.97" in copied
    assert "| at most 16 |" in copied
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save JSON").click()
    found = json.loads(saved.value.path().read_text(encoding="utf-8"))
    assert found["model"] == "nano"
    assert [len(turn["runs"]) for turn in found["turns"]] == [5, 1]
    assert found["turns"][0]["runs"][1]["explained"]["tokens"]["kept"] == 16
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save PNG").click()
    with Image.open(saved.value.path()) as picture:
        assert picture.height > picture.width * size[0] / size[1]

    # Light, dark and narrow. SLIME_SCREENSHOTS=docs/figures makes the picture of the documentation anew.
    folder = Path(os.environ.get("SLIME_SCREENSHOTS", tmp_path))
    assert_accessible(page)
    Image.open(io.BytesIO(page.screenshot())).save(folder / "serving_page.webp", quality=80, method=6)
    assert (folder / "serving_page.webp").stat().st_size < 150_000
    page.emulate_media(color_scheme="dark")
    assert_accessible(page)
    page.screenshot(path=tmp_path / "dark.png")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    page.screenshot(path=tmp_path / "phone.png")


@IN_BROWSER
@pytest.mark.slow
def test_documents_wrong_files_and_history(tiny_server: Running, new_page: Callable[[str], Page]) -> None:
    page = new_page(tiny_server.url)
    file = io.BytesIO()
    drawn("one").save(file, "PDF", save_all=True, append_images=[drawn("two"), drawn("three")])
    choose(page, "three.pdf", file.getvalue(), "application/pdf")
    page.get_by_role("button", name="Page 1 of 3").click()
    pictures = page.locator("#page-list img")
    expect(pictures).to_have_count(3)
    for index in range(3):
        expect(pictures.nth(index)).to_have_attribute("src", re.compile("^blob:"))
    assert_accessible(page)
    page.get_by_role("button", name="Page 2").click()
    expect(page.locator("#pages")).to_have_text("Page 2 of 3")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "What is here?")
    assert json.loads(sent.value.post_data or "")["slime"]["page"] == 2

    # A wrong file is refused in words, and the document stays.
    choose(page, "notes.txt", b"no image at all", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("notes.txt cannot be opened. It is not an image")
    expect(page.locator("#turns > li")).to_have_count(1)

    # A reload empties the page, and the history has the conversation with its file.
    page.reload()
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="three.pdf: What is here?").click()
    expect(page.locator("#turns > li")).to_have_count(1)
    expect(page.locator("#pages")).to_have_text("Page 2 of 3")
    ask(page, "And now?")


@IN_BROWSER
@pytest.mark.slow
def test_server_goes_and_comes_back(tiny: Loaded, new_page: Callable[[str], Page]) -> None:
    with running(tiny, max_tokens=24) as first:
        page = new_page(first.url)
        choose(page, "word.png", png(drawn("word")))
        ask(page, "What is here?")
    page.locator("#question").fill("Still there?")
    page.locator("#question").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(page.locator("#status-text")).to_have_text("The server does not answer. Trying again…")
    # It comes back with a key, which the page asks for.
    with running(tiny, port=int(first.url.rsplit(":", 1)[1]), max_tokens=24, api_keys=["right"]):
        page.get_by_label("API key").fill("right", timeout=MILLISECONDS)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#status-text")).to_have_text("nano is ready", timeout=MILLISECONDS)
        expect(page.get_by_role("alert")).to_contain_text("The server is back.")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#turns > li").nth(1).locator(".facts").last).to_contain_text(" ms", timeout=MILLISECONDS)
        page.close()


@IN_BROWSER
@pytest.mark.slow
def test_two_tabs_do_not_mix(tiny_server: Running, new_page: Callable[[str], Page]) -> None:
    tabs = [new_page(tiny_server.url) for _ in range(2)]
    alone = []
    for tab, word in zip(tabs, ("left", "right"), strict=True):
        choose(tab, f"{word}.png", png(drawn(word)))
        alone.append(ask(tab, f"What is {word}?").locator(".answer").inner_text())
    for tab, word in zip(tabs, ("left", "right"), strict=True):
        tab.locator("#question").fill(f"What is {word}?")
        tab.get_by_role("button", name="New").click()
        choose(tab, f"{word}.png", png(drawn(word)))
        tab.locator("#question").press("Enter")
    for tab, answer in zip(tabs, alone, strict=True):
        expect(tab.locator(".facts").last).to_contain_text(" ms", timeout=MILLISECONDS)
        expect(tab.locator(".answer")).to_have_text(answer, use_inner_text=True)
    tabs[0].get_by_role("button", name="History").click()
    expect(tabs[0].locator("#history-list li")).to_have_count(4)


def test_page_may_load_its_own_files_only(tiny_server: Running) -> None:
    for path in ("/", "/page/app.js", "/page/printed_invoice.webp", "/page/vendor/openseadragon/LICENSE.txt"):
        response = tiny_server.client.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'sha256-")
        assert "unsafe" not in policy
        assert "//" not in policy
    assert tiny_server.client.get("/page/../app.py").status_code == 404
    assert tiny_server.client.post("/v1/unknown").status_code == 404


def test_previews(tiny: Loaded, tiny_server: Running) -> None:
    file = io.BytesIO()
    drawn("one", 400, 300).save(file, "TIFF", save_all=True, append_images=[drawn("two", 200, 300)])
    asked = {"url": data_uri(file.getvalue(), "image/tiff"), "page": 2, "long_side": 150}
    found, _, files = tiny_server.client.post("/page/preview", json=asked).content.partition(b"\n")
    assert json.loads(found) == {
        "pages": 2,
        "tile_side": 1024,
        "levels": [{"size": [100, 150], "tiles": [len(files)]}],
    }
    assert Image.open(io.BytesIO(files)).size == (150, 100)

    # 2600 x 1100 pixels make 3 x 2 tiles, then 2 x 1, then one.
    wide = {"url": data_uri(png(Image.new("RGB", (2600, 1100)))), "long_side": 9000}
    head, _, _ = tiny_server.client.post("/page/preview", json=wide).content.partition(b"\n")
    levels = json.loads(head)["levels"]
    assert [level["size"] for level in levels] == [[275, 650], [550, 1300], [1100, 2600]]
    assert [len(level["tiles"]) for level in levels] == [1, 2, 6]
    for fields, word in (
        ({**asked, "page": 3}, "there is no #3"),
        ({**asked, "url": "/etc/passwd"}, "no data URI"),
        ({**asked, "url": data_uri(b"text")}, "not an image"),
        ({**asked, "long_side": 10**6}, "less than or equal to 65536"),
        ([], "object"),
    ):
        response = tiny_server.client.post("/page/preview", json=fields)
        assert response.status_code == 400
        assert word in response.json()["error"]["message"]
    with running(tiny, api_keys=["right"]) as guarded:
        assert guarded.client.post("/page/preview", json=asked).status_code == 401
        assert guarded.client.get("/").status_code == 200
