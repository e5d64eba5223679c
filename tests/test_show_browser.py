"""The page of one scored text, as a headless Chromium has it: elements, what they do, and pixels."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("rich")

from browser import Browser, Picture
from crosstok.show import Position, page
from crosstok.show.palette import BINS, bin_of
from explained import NASTY, TEXT, Markup, demo, explain, show, tiny


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser.find(tmp_path_factory.mktemp("browser"))


# Goes through the page as a reader does, and writes down what it shows.
READER = """<script>
const seen = [], show = (chip) => chip.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
const panel = () => document.getElementById("panel").innerText;
for (const chip of document.querySelectorAll("#text .s")) { show(chip); seen.push(panel()); }
document.getElementById("text").dispatchEvent(new PointerEvent("pointerleave"));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
document.querySelector("#text [tabindex='0']").focus();
const keys = [];
for (const key of ["Home", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "End", "ArrowRight"]) {
  press(key);
  keys.push(document.activeElement.dataset.i);
}
const chart = document.getElementById("svg"), box = chart.getBoundingClientRect();
const drawn = () => [...document.querySelectorAll("#svg rect.bit, #svg rect.removed")];
const bars = () => drawn().map((bar) => bar.height.baseVal.value);
const bits = bars();
const over = {clientX: box.left + 2.5 * box.width / Math.max(bits.length, 1), clientY: box.top + 9, bubbles: true};
chart.dispatchEvent(new PointerEvent("pointermove", over));
const hovered = [...document.querySelectorAll("#text .s.on")].map((chip) => chip.dataset.i);
document.querySelector("[data-series='removed']").click();
const lines = [...document.querySelectorAll("#text .block")].flatMap((block) => {
  const edges = (kind) => [...block.querySelectorAll(kind)].map((chip) => chip.getBoundingClientRect());
  const [above, below] = [edges(".s"), edges(".t")];
  return [above[0].left - below[0].left, above.at(-1).right - below.at(-1).right];
});
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.title = JSON.stringify({seen, keys, hovered, bits, removed: bars(), lines, wide});
</script>"""


def percent(share: float) -> str:
    value = 100 * share
    return "<\u202f0.01" if 0 < value < 0.01 else f"{value:.2f}"


@pytest.mark.parametrize("merges", [0, 200])
@pytest.mark.parametrize("text", [TEXT, NASTY], ids=["plain", "nasty"])
def test_page_in_a_browser(browser: Browser, merges: int, text: str) -> None:
    """All chips are there and line up, every panel has its covers' masses, keys and chart work, nothing is thrown."""
    found = explain(demo(merges), text)
    markup = Markup(browser.dom(page(found).replace("</body>", READER + "</body>")))
    classes = [(attributes.get("class") or "").split() for _, attributes in markup.tags]
    count, own = len(found.positions), len(found.teacher)
    assert sum("s" in each and "chip" in each for each in classes) == count + 1  # one is the panel's
    assert sum("t" in each for each in classes) >= own
    report = browser.title()
    for i, position in enumerate(found.positions):
        check_panel(report["seen"][i], i, position, count)
    assert report["keys"][:4] == ["0", "1", "2", "1"] and report["keys"][5] == "1"
    assert report["keys"][6:] == [str(count - 1)] * 2
    assert report["hovered"] == ["2"]
    assert len(report["bits"]) == len(report["removed"]) == count and report["bits"] != report["removed"]
    tallest = max(range(count), key=lambda i: report["bits"][i])
    assert tallest == found.least_likely()[0]
    assert max(map(abs, report["lines"])) < 1 and report["wide"] <= 0


def check_panel(shown: str, at: int, position: Position, count: int) -> None:
    """A panel's text has the token's place, its probability, its status, and a line for each cover."""
    assert f"student token {at + 1} of {count}" in shown
    p = math.exp(position.logprob)
    assert f"p = {p:.4f}" in shown or p < 0.001
    assert position.status in shown
    covers = len(position.covers) + position.rest
    assert f"{covers} cover{'s' if covers > 1 else ''}" in shown
    for cover in position.covers:
        assert percent(cover.share) in shown or cover.share > 0.9999
    assert shown.count("q = ") == len(position.covers) + (position.rest > 0)


def test_impossible_text_in_a_browser(browser: Browser) -> None:
    found = explain(tiny(1, dead=(3, 3)), "aba  ab")
    markup = Markup(browser.dom(page(found).replace("</body>", READER + "</body>")))
    assert any("b7" in (attributes.get("class") or "").split() for _, attributes in markup.tags)
    assert any("p = 0" in shown and "∞" in shown for shown in browser.title()["seen"])


def test_no_text_in_a_browser(browser: Browser) -> None:
    browser.dom(page(explain(demo(200), "", ended=False)))
    browser.dom(page(explain(demo(200), "")))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("merges", [0, 200])
def test_screenshot(browser: Browser, theme: str, merges: int) -> None:
    """The picture has the colours that the probabilities ask for, on the theme's ground."""
    found = explain(demo(merges), TEXT)
    picture: Picture = browser.picture(page(found, theme), 900, 640)
    assert picture.size == (900, 640)
    colours = picture.colours()
    assert len(colours) > 100
    ground = "#ffffff" if theme == "light" else "#15141a"
    assert colours.most_common(1)[0][0] == ground
    for position in found.positions:
        assert colours[getattr(BINS[bin_of(position.logprob)], theme).ground] > 40


def test_automatic_theme_follows_the_reader(browser: Browser) -> None:
    source = page(explain(demo(200), "x = 1"))
    grounds = [
        browser.picture(source, 500, 300, dark=dark).colours().most_common(1)[0][0] for dark in (False, True)
    ]
    assert grounds == ["#ffffff", "#15141a"]


def test_frame_in_a_browser(browser: Browser) -> None:
    """The notebook's frame draws itself inside another page, whose own style it neither meets nor changes."""
    shown = show(demo(200), TEXT)
    outer = f"<!doctype html><style>span {{ display: none }}</style><body>{shown._repr_html_()}</body>"
    colours = browser.picture(outer, 900, 900).colours()
    assert sum(colours[bin.light.ground] > 40 for bin in BINS) >= 6
