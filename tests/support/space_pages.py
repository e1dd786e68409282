"""What a person does on the pages of the demonstration, for a browser that Playwright drives."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fabrec_hf.demo.annotation_view import SIDE, crop_of


ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = [str(ROOT / "examples" / name) for name in ("astronaut.jpg", "grace_hopper.jpg")]

# Contrast of every visible text with the background that is painted behind it, by the formula of WCAG 2; signs such as
# arrows need no more than large letters do.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255];
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement || e.getRootNode().host) {
      const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0.5) return c;
    }
    return [255, 255, 255, 1];
  };
  // Also what lies in the shadow of another element: the boards that are drawn by scripts of ours.
  const all = root => [...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
  const weak = [];
  for (const e of all(document).filter(e => e.matches('p, h1, h2, h3, button, label, span, td, th, li, output'))) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    const box = e.getBoundingClientRect();
    if (!text || !box.width || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const [one, two] = [light(rgba(style.color).slice(0, 3)), light(behind(e).slice(0, 3))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    const large = !/[\\p{L}\\p{N}]/u.test(text) || size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) weak.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return weak;
}"""


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page, button, files):
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(files)


def upload(page, file):
    """Give a photograph to the page Photograph, which opens first."""
    page.locator("input[type=file]").first.set_input_files(str(file))


def pictures(page, label):
    return page.locator(f".block:has(label:has-text('{label}')) img")


def downloaded(page, name):
    with page.expect_download() as download:
        page.locator(f"a[download='{name}']").first.click()
    return Path(download.value.path()).read_bytes()


def click_face(page, x, y):
    """Click on the face that is annotated, at these shares of its picture."""
    stage = page.locator("#teach-face .stage")
    box = stage.bounding_box()
    stage.click(position={"x": x * box["width"], "y": y * box["height"]})


def assert_clicked(space, point, place):
    """The point is where it was clicked, as a share of the picture, in what was written to disk."""
    face = first_face(space)
    view = crop_of(face["box"])
    x, y = view.from_photograph(np.array([face["points"][point]]))[0] / SIDE
    assert (x, y) == pytest.approx(place, abs=0.01)


def first_face(space):
    """The face that is annotated first, as it is on disk."""
    project = json.loads(max(space.services.sessions.root.glob("*/project.json"), key=os.path.getmtime).read_bytes())
    return project["faces"][project["order"][0]]


def until(page, condition):
    """Wait until a condition holds."""
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to that")


def ask_to_begin(page, names, photographs=PHOTOGRAPHS):
    """Give Teach these photographs, of one face each, and points, and ask for faces to annotate."""
    open_tab(page, "Teach")
    choose(page, page.get_by_role("button", name="Or choose photographs"), photographs)
    count = len(photographs)
    plural = "s" if count > 1 else ""
    page.locator(f"#teach-photographs >> text={count} photograph{plural}, {count} face{plural}").wait_for()
    page.get_by_label("Names of the points").fill(names)
    page.get_by_role("button", name="Choose the faces to annotate").click()


def begin(page, names, photographs=PHOTOGRAPHS):
    """Open Teach with these photographs, of one face each, and points."""
    ask_to_begin(page, names, photographs)
    page.locator("#teach-status").get_by_text(f"Face 1 of {len(photographs)}").wait_for()
