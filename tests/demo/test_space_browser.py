"""Every page of the Space in a real browser, at the width of a desk and of a phone.

They take minutes, and run with SPACE_BROWSER=1: see `support.space_browser`.
"""

import re

import pytest

from support.space_browser import SLOW, WIDTHS, playwright
from support.space_pages import (
    CONTRAST,
    PHOTOGRAPHS,
    ask_to_begin,
    begin,
    click_face,
    downloaded,
    open_tab,
    pictures,
    upload,
)


# Also what lies in the shadow of another element.
QUERY = """(selector => [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector(
  selector.split(' ').pop())).find(Boolean))"""
MAKE_FILES = "Make files: annotations (COCO, .pts) and checkpoint"


def test_detect(page):
    upload(page, PHOTOGRAPHS[0])
    page.locator("#detect-summary >> text=1 face").wait_for()
    for label in ("Landmarks by their score", "Landmark heatmaps", "Not reconstructed"):
        pictures(page, label).first.wait_for()
    content = downloaded(page, "astronaut.json")
    assert b'"scheme": "300w"' in content and b"null" not in content
    assert downloaded(page, "astronaut.csv").startswith(b"face,point,name,x,y,score,expected_error")
    assert downloaded(page, "astronaut.landmarks.png").startswith(b"\x89PNG")
    assert page.get_by_role("button", name="Share").count() == 0

    # No score is 1: with this threshold there is no landmark left in the files, which come under another address.
    address = page.locator("a[download='astronaut.json']").get_attribute("href")
    slider = page.get_by_role("slider", name="Threshold").first
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_function(
        "old => { const a = document.querySelector(\"a[download='astronaut.json']\"); return a && a.href !== old }",
        arg=address,
    )
    assert b"null" in downloaded(page, "astronaut.json")


def test_a_file_that_is_no_picture_is_answered_in_a_sentence(page, tmp_path):
    (tmp_path / "notes.jpg").write_text("some words, no picture")
    upload(page, tmp_path / "notes.jpg")
    page.get_by_text("notes.jpg is not a picture that can be read: send JPEG, PNG or WebP.").wait_for()
    page.wait_for_timeout(300)
    bare = page.get_by_test_id("status-tracker").get_by_text("Error", exact=True).all()
    assert bare and not any(found.is_visible() for found in bare)


def test_an_example_is_looked_at_and_goes_away_again(page):
    page.locator(".gallery-item").nth(1).click()
    page.locator("#detect-summary >> text=1 face").wait_for()
    page.locator("a[download='grace_hopper.json']").first.wait_for()
    page.get_by_role("button", name="Remove Image").first.click()
    page.locator("#detect-summary").get_by_text("1 face").wait_for(state="hidden")
    page.locator("a[download='grace_hopper.json']").wait_for(state="detached")


def test_a_visitor_sees_one_line_for_a_mistake(page):
    ask_to_begin(page, "a, a", PHOTOGRAPHS[:1])
    page.get_by_text("differ").first.wait_for()
    assert "Traceback" not in page.content()


def test_the_camera_is_followed(page):
    """The camera shows a photograph: its landmarks are drawn, left out by the slider, and the camera is let go of."""
    open_tab(page, "Live camera")
    rate, aqua = page.locator("#camera output"), "#camera canvas"
    page.get_by_role("button", name="Start the camera").click()
    rate.get_by_text(re.compile(r"^[0-9.]+ frames a second, 1 face\.$")).wait_for()
    # The colors of landmarks, from amber to aqua, are nowhere in the photograph.
    count = f"""() => {{
      const canvas = {QUERY}('{aqua}'), pixels = canvas.getContext('2d').getImageData(0, 0, 640, 480).data;
      let found = 0;
      for (let i = 0; i < pixels.length; i += 4) found += pixels[i] < 160 && pixels[i + 1] > 220 && pixels[i + 2] > 150
        && pixels[i + 2] < 235;
      return found;
    }}"""
    drawn = page.evaluate(count)
    slider = page.locator("#camera input")
    slider.focus()
    page.keyboard.press("End")
    page.locator("#camera >> text=1.00").wait_for()
    page.wait_for_function(f"({count})() < {drawn} / 4")
    assert drawn > 50
    page.get_by_role("button", name="Stop", exact=True).click()
    playwright.expect(rate).to_have_text("", timeout=SLOW)
    page.get_by_role("button", name="Start the camera").click()
    rate.get_by_text("1 face").wait_for()
    open_tab(page, "Photograph")  # which stops it, too
    playwright.expect(page.locator("#camera button.start")).to_be_enabled(timeout=SLOW)


def test_a_camera_that_may_not_be_used_is_answered_in_a_sentence(page):
    open_tab(page, "Live camera")
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') } }"
    )
    page.get_by_role("button", name="Start the camera").click()
    page.locator("#camera output").get_by_text("There is no camera: plug one in").wait_for()
    playwright.expect(page.get_by_role("button", name="Start the camera")).to_be_enabled()


def test_what_has_nothing_to_act_on_is_disabled(page):
    for tab, names in (
        ("Detect", ["Find faces"]),
        ("Teach", ["Choose the faces to annotate", "Train", "Cancel", MAKE_FILES]),
        ("Compare", ["Compare"]),
    ):
        open_tab(page, tab)
        for name in names:
            playwright.expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()


@pytest.mark.parametrize("width", list(WIDTHS))
def test_every_page_can_be_read_in_the_dark(width, chromium, space):
    """With an empty page each, and with faces to annotate."""
    context = chromium.new_context(viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    page = context.new_page()
    page.set_default_timeout(SLOW)
    page.goto(f"{space.url}/?__theme=dark")
    page.locator("body.dark").wait_for()
    for tab in ("Photograph", "Live camera", "Latent space", "Compare", "Teach"):
        if tab == "Teach":
            begin(page, "nose, chin", PHOTOGRAPHS[:1])
            click_face(page, 0.5, 0.5)
            page.locator("#teach-status").get_by_text("Click 2 chin").wait_for()
        else:
            open_tab(page, tab)
            page.wait_for_timeout(300)
        assert page.evaluate(CONTRAST) == [], tab
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0], tab
    context.close()


def test_latent_space(page):
    open_tab(page, "Latent space")
    shown = page.locator("#latent-face img")
    shown.wait_for()  # the face itself, before anything is moved
    itself = shown.get_attribute("src")
    page.get_by_role("button", name="Draw faces").click()
    page.get_by_text("heatmaps 6").first.wait_for()
    slider = page.get_by_role("slider", name="Pose 1").first
    slider.focus()
    page.keyboard.press("End")
    playwright.expect(shown).not_to_have_attribute("src", itself, timeout=SLOW)
    page.get_by_role("button", name="Go from one to the other").click()
    pictures(page, "Animation").first.wait_for()
    pictures(page, "Step by step").nth(8).wait_for()
    assert pictures(page, "Step by step").count() == 9


def test_compare(page):
    open_tab(page, "Compare")
    block = page.locator(".block").filter(has_text="Photographs, and .pts files").last
    block.locator("input[type=file]").set_input_files(PHOTOGRAPHS)
    page.get_by_text("grace_hopper").first.wait_for()
    button, checkpoint = page.get_by_role("button", name="Compare", exact=True), page.get_by_label("3fabrec-300w")
    checkpoint.uncheck()
    playwright.expect(button).to_be_disabled(timeout=SLOW)
    checkpoint.check()
    playwright.expect(button).to_be_enabled(timeout=SLOW)
    button.click()
    page.get_by_text("astronaut.jpg · 3fabrec-300w").first.wait_for()
