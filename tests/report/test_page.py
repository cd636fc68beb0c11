"""The page in a real browser: every figure drawn, no console error, no request, readable from 400 to 1280 px."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from aldriver.report import write_report

SIZES = [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]

DRAWN = """[...document.querySelectorAll('[data-figure]')].map(b => ({
    key: b.dataset.figure,
    drawn: b.dataset.drawn,
    marks: b.querySelectorAll('.main-svg .points path, .main-svg .js-line, .main-svg .js-fill').length,
    width: b.querySelector('.main-svg')?.getBoundingClientRect().width ?? 0,
    box: b.getBoundingClientRect().width,
    label: b.getAttribute('aria-label'),
}))"""

OVERFLOW = """[...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll > *, .plot, .skip, #js-plotly-tester'))
    .map(e => [e.getBoundingClientRect(), e.tagName + '.' + e.className])
    .filter(([box, _]) => box.right > innerWidth + 1 || box.left < -1)
    .map(([_, name]) => name)"""

# Relative luminance and contrast ratio as WCAG 2.1 defines them
CONTRAST = """(() => {
    const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
    const behind = e => { for (; e; e = e.parentElement) {
        const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3) return c; } return [255, 255, 255]; };
    const texts = 'h1, h2, h3, p, td, th, dt, dd b, dd span, .tag, .dev, .sub, a, li, figcaption, button';
    return [...document.querySelectorAll(texts)]
        .map(e => { const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + '.' + e.className]; })
        .filter(([ratio]) => ratio < 4.5);
})()"""


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_figure_is_drawn_and_the_page_fits_its_window(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    figures = browser.ask(DRAWN)
    assert len(figures) == 3 + 2 + 2 + 3 + 2 + 1
    for figure in figures:
        assert figure["drawn"] == "yes", figure
        assert figure["marks"] > 0, figure
        assert 0 < figure["width"] <= figure["box"] + 1, figure
        assert len(figure["label"]) > 20, figure
    assert browser.errors == []
    # the page fits the window; tables scroll within themselves
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.scrollingElement.scrollWidth") <= width
    assert browser.ask(OVERFLOW) == []
    scrolls = browser.ask("[...document.querySelectorAll('.scroll')].map(s => getComputedStyle(s).overflowX)")
    assert len(scrolls) >= 4 and set(scrolls) == {"auto"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(browser, page, scheme):
    browser.open(page, width=1280, scheme=scheme)
    background = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 384) == (scheme == "light")
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask(CONTRAST) == []


def test_browser_asks_the_network_for_nothing(browser, page):
    browser.open(page, width=1280)
    assert {url for url in browser.requests if not url.startswith(("data:", "blob:"))} == {page.resolve().as_uri()}


def test_figures_follow_a_change_of_scheme_and_width(browser, page):
    browser.open(page, width=1280, scheme="light")
    colour = "getComputedStyle(document.querySelector('#plot-cost .xtick text')).fill"
    light = browser.ask(colour)
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.ask("""new Promise(done => { const look = () =>
        document.documentElement.dataset.ready === 'dark' ? done(1) : setTimeout(look, 50); look(); })""")
    assert browser.ask(colour) != light
    browser.send("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1, mobile=False)
    browser.ask("new Promise(r => setTimeout(r, 500))")
    assert browser.ask("document.scrollingElement.scrollWidth") <= 700
    assert all(0 < f["width"] <= f["box"] + 1 for f in browser.ask(DRAWN))


def test_a_figure_can_be_saved_as_svg(browser, page):
    browser.open(page, width=1280)
    spied = """new Promise(done => { Plotly.downloadImage = (box, options) => done([box.id, options.format]);
        document.querySelector('[data-save=cost]').click(); })"""
    assert browser.ask(spied) == ["plot-cost", "svg"]
    svg = browser.ask("Plotly.toImage(document.getElementById('plot-cost'), {format: 'svg'})")
    assert svg.startswith("data:image/svg+xml") and browser.errors == []


def test_headings_and_landmarks_are_in_order(browser, page):
    browser.open(page, width=1280)
    assert browser.ask("document.documentElement.lang") == "en"
    assert browser.ask("document.querySelectorAll('h1, main, nav, header').length") == 4
    levels = browser.ask("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert all(b - a <= 1 for a, b in pairwise(levels))
    links = browser.ask("[...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.hash))")
    assert links and all(links)
    assert browser.ask("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == browser.ask(
        "document.querySelectorAll('[id]').length"
    )


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_names_stay_text(browser, fresh, tmp_path, width):
    text = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"&" + "x" * 300
    root = fresh(name="<b>it's</b>", text=text)
    browser.open(write_report(root, tmp_path / "hostile.html"), width=width)
    assert browser.ask("window.pwned ?? 'safe'") == "safe"
    assert browser.ask("document.querySelector('h1').textContent") == "<b>it's</b>"
    assert browser.ask("document.body.textContent.includes(\"<img src=x onerror='window.pwned=1'>\")")
    assert browser.ask("document.scrollingElement.scrollWidth") <= width
    assert browser.errors == []
    assert all(f["drawn"] == "yes" for f in browser.ask(DRAWN))


@pytest.mark.parametrize("generations", [0, 1])
def test_campaign_under_way(browser, fresh, tmp_path, generations):
    browser.open(write_report(fresh(generations=generations), tmp_path / "early.html"), width=400)
    assert browser.errors == []
    assert all(f["drawn"] == "yes" for f in browser.ask(DRAWN))
    assert "under way" in browser.ask("document.querySelector('header').textContent")
    assert browser.ask("document.scrollingElement.scrollWidth") <= 400
