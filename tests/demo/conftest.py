"""The demonstration in a browser, at the width of a desk and of a phone.

What needs a browser is imported by the fixtures: most tests of this folder do without.
"""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    from support.space_client import running_space

    with running_space(tmp_path_factory.mktemp("sessions")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from support.space_browser import CHROMIUM, playwright
    from support.space_pages import PHOTOGRAPHS

    # The camera shows a photograph, as a film of two frames; without a sandbox since tests may run as root.
    film = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    film.write_bytes(2 * Path(PHOTOGRAPHS[0]).read_bytes())
    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options.append(f"--use-file-for-fake-video-capture={film}")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(params=["desktop", "phone"])
def page(request, chromium, space):
    """A page of each width, that has asked no other host for anything and has met no error when the test is over."""
    from support.space_browser import SCREENSHOTS, SLOW, WIDTHS
    from support.space_pages import CONTRAST

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
