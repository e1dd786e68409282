"""The page Teach in a real browser: points by mouse, keys and fingers, and the way to a detector.

They take minutes, and run with SPACE_BROWSER=1: see `support.space_browser`.
"""

import io
import zipfile

from support.space_browser import SLOW, playwright
from support.space_pages import (
    PHOTOGRAPHS,
    assert_clicked,
    begin,
    click_face,
    downloaded,
    first_face,
    open_tab,
    until,
)


FOCUSED = "(document.activeElement.shadowRoot?.activeElement || document.activeElement)"


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
    begin(page, "nose, chin")
    status = page.locator("#teach-status")
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
    begin(page, "nose", PHOTOGRAPHS[:1])
    playwright.expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    playwright.expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.locator("#teach-face .stage").click()
    page.locator("#teach-status").get_by_text("1 complete").wait_for()
    page.get_by_role("button", name="Train", exact=True).click()
    page.locator("#teach-training >> text=/Learning: step/").wait_for()
    page.locator("#teach-bar >> text=/[0-9]+ %|[0-9]+%/").wait_for()
    playwright.expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled(timeout=SLOW)
    page.get_by_role("button", name="Cancel").click()
    page.locator("#teach-training >> text=/Canceled; what was learned/").wait_for()
    playwright.expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled(timeout=SLOW)
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
