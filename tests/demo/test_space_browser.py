"""Every page of the Space in a real browser, at the width of a desk and of a phone.

They take minutes: run with SPACE_BROWSER=1, where there are Playwright and Chromium (`apt-get install chromium`). With
SPACE_SCREENSHOTS=DIR a picture of each page is kept.
"""

import io
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest


pytest.importorskip("gradio")
pytest.importorskip("kmedoids")
playwright = pytest.importorskip("playwright.sync_api")

from support.space_client import running_space  # noqa: E402
from support.space_pages import (  # noqa: E402
    CONTRAST,
    PHOTOGRAPHS,
    assert_clicked,
    begin,
    choose,
    click_face,
    downloaded,
    first_face,
    open_tab,
    pictures,
    until,
)


ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("SPACE_SCREENSHOTS")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SLOW = 180_000  # milliseconds that a busy machine may take
# Also what lies in the shadow of another element.
QUERY = """(selector => [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector(
  selector.split(' ').pop())).find(Boolean))"""
FOCUSED = "(document.activeElement.shadowRoot?.activeElement || document.activeElement)"
MAKE_FILES = "Make files: annotations (COCO, .pts) and checkpoint"

if CHROMIUM is None or not os.environ.get("SPACE_BROWSER"):
    pytest.skip("there is no Chromium, or SPACE_BROWSER=1 is not set", allow_module_level=True)
if not (ROOT / "space").is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    with running_space(tmp_path_factory.mktemp("sessions")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    # The camera shows a photograph, as a film of two frames; without a sandbox since tests may run as root.
    film = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    film.write_bytes(2 * Path(PHOTOGRAPHS[0]).read_bytes())
    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options.append(f"--use-file-for-fake-video-capture={film}")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(params=list(WIDTHS))
def page(request, chromium, space):
    """A page of each width, that has asked no other host for anything and has met no error when the test is over."""
    width, height = WIDTHS[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height}, permissions=["camera"])
    page = context.new_page()
    page.set_default_timeout(SLOW)
    asked, errors = [], []
    context.on("request", lambda sent: asked.append(sent.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(space.url)
    page.get_by_role("button", name="Find faces").wait_for()
    yield page
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{request.node.name.replace('[', '-').strip(']')}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
    assert page.evaluate(CONTRAST) == []
    context.close()
    assert {url for url in asked if not url.startswith((space.url, "data:", "blob:"))} == set()
    assert asked and errors == []


def test_detect(page):
    page.locator("input[type=file]").first.set_input_files(PHOTOGRAPHS[0])
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
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "notes.jpg"))
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
    open_tab(page, "Teach")
    choose(page, page.get_by_role("button", name="Or choose photographs"), PHOTOGRAPHS[:1])
    page.locator("#teach-photographs >> text=1 photograph").wait_for()
    page.get_by_label("Names of the points").fill("a, a")
    page.get_by_role("button", name="Choose the faces to annotate").click()
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
    page.get_by_role("button", name="Draw faces").click()
    page.get_by_text("heatmaps 6").first.wait_for()
    slider = page.get_by_role("slider", name="Pose 1").first
    slider.focus()
    page.keyboard.press("End")
    page.locator("#latent-face img").wait_for()
    page.get_by_role("button", name="Go from one to the other").click()
    pictures(page, "Animation").first.wait_for()
    pictures(page, "Step by step").nth(8).wait_for()
    assert pictures(page, "Step by step").count() == 9


def test_compare(page):
    open_tab(page, "Compare")
    block = page.locator(".block").filter(has_text="Photographs, and .pts files").last
    block.locator("input[type=file]").set_input_files(PHOTOGRAPHS)
    page.get_by_text("grace_hopper").first.wait_for()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("astronaut.jpg · 3fabrec-300w").first.wait_for()


def test_a_point_is_dragged_nudged_hidden_and_taken_back(page, space):
    begin(page, "left_eye, right_eye, nose, chin")
    stage, status = page.locator("#teach-face .stage"), page.locator("#teach-status")
    click_face(page, 0.6, 0.45)
    until(page, lambda: first_face(space)["points"][0] is not None)
    box = stage.bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    page.mouse.move(*at(0.6, 0.45))
    page.mouse.down()
    page.mouse.move(*at(0.62, 0.47), steps=3)
    page.mouse.move(*at(0.66, 0.5), steps=3)
    page.mouse.up()
    until(page, lambda: first_face(space)["points"][0] != first_face(space)["points"][1])
    page.wait_for_timeout(500)
    assert_clicked(space, 0, (0.66, 0.5))

    # Ten steps to the right are 10 of 480 parts; then the second point by its number, and Tab to the third.
    before = first_face(space)["points"][0]
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    until(page, lambda: first_face(space)["points"][0] != before)
    assert_clicked(space, 0, (0.66 + 10 / 480, 0.5))
    page.keyboard.press("2")
    status.get_by_text("Click 2 right_eye").wait_for()
    page.keyboard.press("Tab")
    status.get_by_text("Click 3 nose").wait_for()
    page.keyboard.press("h")
    until(page, lambda: first_face(space)["hidden"][2])
    page.keyboard.press("z")
    until(page, lambda: not first_face(space)["hidden"][2])
    page.keyboard.press("Enter")
    status.get_by_text("Face 2 of 2").wait_for()
    page.locator("#teach-face .faces button").first.click()
    status.get_by_text("Face 1 of 2").wait_for()
    assert page.locator("#teach-face .faces button").first.get_attribute("class") == "begun"


def test_a_click_in_the_enlarged_face_is_where_it_was_made(page, space):
    """Zoomed three times by keys about the middle, a click at 0.7 is at 0.5 + 0.2 / 1.4 ** 3."""
    begin(page, "nose, chin", PHOTOGRAPHS[:1])
    page.locator("#teach-face .stage").focus()
    for _ in range(3):
        page.keyboard.press("+")
    click_face(page, 0.7, 0.4)
    until(page, lambda: first_face(space)["points"][0] is not None)
    assert_clicked(space, 0, (0.5 + 0.2 / 1.4**3, 0.5 - 0.1 / 1.4**3))
    # Dragging where no point is moves the picture: by a tenth of the stage to the left.
    box = page.locator("#teach-face .stage").bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.8 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.8 * box["height"], steps=4)
    page.mouse.up()
    click_face(page, 0.4, 0.4)
    until(page, lambda: first_face(space)["points"][1] is not None)
    assert_clicked(space, 1, (0.5 + (0.4 - 0.5 + 0.1) / 1.4**3, 0.5 - 0.1 / 1.4**3))


def test_labels_do_not_cover_points(page, space):
    begin(page, "a, b, c, d, e, f", PHOTOGRAPHS[:1])
    places = [(0.4, 0.4), (0.5, 0.4), (0.6, 0.4), (0.42, 0.5), (0.5, 0.5), (0.58, 0.5)]
    for x, y in places:
        click_face(page, x, y)
    until(page, lambda: all(first_face(space)["points"]))
    covered = page.locator("#teach-face .stage").evaluate(
        """stage => {
          const dots = [...stage.querySelectorAll('.dot')].map(e => e.getBoundingClientRect());
          return [...stage.querySelectorAll('text')].filter(text => { const b = text.getBoundingClientRect();
            return dots.some(d => d.left < b.right && d.right > b.left && d.top < b.bottom && d.bottom > b.top);
          }).map(text => text.textContent);
        }"""
    )
    assert covered == [] and page.locator("#teach-face .stage text").count() == 6


def test_two_fingers_enlarge_and_one_places(chromium, space):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(SLOW)
    page.goto(space.url)
    begin(page, "nose, chin", PHOTOGRAPHS[:1])
    stage = page.locator("#teach-face .stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.55 * box["height"])
    until(page, lambda: first_face(space)["points"][0] is not None)
    assert_clicked(space, 0, (0.5, 0.55))
    fingers = context.new_cdp_session(page)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, far):
        points = [] if kind == "touchEnd" else [{"x": middle[0] + s * far, "y": middle[1], "id": s} for s in (0, 1)]
        points = [{**point, "x": middle[0] + (1 if i else -1) * far} for i, point in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for far in (40, 50, 60):
        touch("touchMove", far)
    touch("touchEnd", 0)
    page.locator("#teach-face .zoom >> text=2.0×").wait_for()
    assert first_face(space)["points"][1] is None
    context.close()


def test_sample_faces_are_there_to_try(page):
    open_tab(page, "Teach")
    playwright.expect(page.get_by_role("button", name="Choose the faces to annotate")).to_be_disabled()
    page.get_by_role("button", name="Or try 12 sample faces").click()
    page.locator("#teach-photographs >> text=12 photographs, 12 faces").wait_for()
    page.get_by_role("button", name="Choose the faces to annotate").click()
    page.locator("#teach-status").get_by_text("Face 1 of 10").wait_for()
    playwright.expect(page.locator("#teach-face .faces button")).to_have_count(10)


def test_teach_from_photographs_to_a_detector(page, space):
    open_tab(page, "Teach")
    choose(page, page.get_by_role("button", name="Or choose photographs"), PHOTOGRAPHS)
    page.locator("#teach-photographs >> text=2 photographs, 2 faces").wait_for()
    page.get_by_label("Names of the points").fill("nose, chin")
    page.get_by_role("button", name="Choose the faces to annotate").click()
    status = page.locator("#teach-status")
    status.get_by_text("Face 1 of 2").wait_for()
    for y in (0.55, 0.8):
        click_face(page, 0.5, y)
    status.get_by_text("1 complete").wait_for()
    page.get_by_role("button", name="Undo").click()
    status.get_by_text("0 complete").wait_for()
    # The second point without a mouse: moved from where it is proposed or from the middle.
    move = page.get_by_role("button", name="↓ down")
    move.focus()
    page.keyboard.press("Enter")
    status.get_by_text("1 complete").wait_for()
    assert_clicked(space, 0, (0.5, 0.55))
    page.get_by_role("button", name="Next face").click()
    status.get_by_text("Face 2 of 2").wait_for()
    status.get_by_text("proposed").wait_for()
    # The tab is lost and opened again: nothing is.
    page.reload()
    open_tab(page, "Teach")
    page.locator("#teach-status").get_by_text("1 complete").wait_for()
    assert page.get_by_label("Names of the points").input_value() == "nose, chin"

    effort = page.get_by_label("number input for Length (1 is usual)")
    effort.fill("0.1")
    effort.press("Tab")
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#teach-training >> text=/Done. 1 face in/").wait_for(timeout=5 * SLOW)
    page.get_by_text("Heatmap loss").wait_for()
    page.get_by_text("grace_hopper.jpg").first.wait_for()
    # One click opens the doubtful face, with what was learned proposed.
    page.get_by_role("button", name="Correct the most doubtful ones").click()
    status.get_by_text("Face 2 of 2").wait_for()
    status.get_by_text("proposed").wait_for()
    page.get_by_role("button", name="Skip this face").click()
    status.get_by_text("This face is skipped").wait_for()
    page.get_by_role("button", name="Make files").click()
    page.locator("a[download='annotations-coco.zip']").first.wait_for()
    assert zipfile.is_zipfile(io.BytesIO(downloaded(page, "annotations-pts.zip")))
    with zipfile.ZipFile(io.BytesIO(downloaded(page, "checkpoint.zip"))) as checkpoint:
        assert {"config.json", "model.safetensors"} <= set(checkpoint.namelist())

    page.get_by_text("Push the detector to the Hub").click()
    token = page.get_by_label("Token with write permission")
    assert token.get_attribute("type") == "password"
    token.fill("a-token")
    page.get_by_role("button", name="Push", exact=True).click()
    page.get_by_text("Give a repository as owner/name").wait_for()
    playwright.expect(token).to_have_value("")

    open_tab(page, "Compare")
    page.get_by_label("taught in this session").wait_for()


def test_a_training_can_be_cancelled(page):
    open_tab(page, "Teach")
    choose(page, page.get_by_role("button", name="Or choose photographs"), PHOTOGRAPHS[:1])
    page.locator("#teach-photographs >> text=1 photograph,").wait_for()
    page.get_by_label("Names of the points").fill("nose")
    page.get_by_role("button", name="Choose the faces to annotate").click()
    page.locator("#teach-status").get_by_text("Face 1 of 1").wait_for()
    playwright.expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    playwright.expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.locator("#teach-face .stage").click()
    page.locator("#teach-status").get_by_text("1 complete").wait_for()
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#teach-training >> text=/Learning: step/").wait_for()
    page.locator("#teach-bar >> text=/[0-9]+ %|[0-9]+%/").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#teach-training >> text=/Canceled; what was learned/").wait_for()
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Remove everything").click()
    page.locator("#teach-status").get_by_text("choose the faces first").wait_for()
    page.wait_for_function("document.querySelector('#teach-training').innerText.trim() === ''")


def test_everything_is_reached_by_keyboard(page):
    begin(page, "nose, chin")
    click_face(page, 0.5, 0.5)
    page.locator("#teach-status").get_by_text("Click 2 chin").wait_for()
    page.get_by_role("tab", name="Teach", exact=True).focus()
    names = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        names.add(page.evaluate(f"(e => e.innerText?.trim() || e.labels?.[0]?.innerText || '')({FOCUSED})"))
        outline = page.evaluate(f"getComputedStyle({FOCUSED}).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
    wanted = {"Or choose photographs", "Choose the faces to annotate", "Whole face", "Undo", "Next face", "Train"}
    assert wanted <= names
