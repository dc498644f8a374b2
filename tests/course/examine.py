"""What can be seen of a notebook in the page: headings, pictures, widgets, and the contrast of the course's own output."""

from __future__ import annotations

import itertools
import sys
from typing import Any

# WCAG 2.2, level AA: contrast of text, and of large text (24 px, or bold from 18.66 px).
CONTRAST, CONTRAST_LARGE = 4.5, 3.0
# Students begin in the first one.
THEMES = ("JupyterLab Light", "JupyterLab Dark")

# The notebook that is open, as JavaScript.
_OPEN_NODE = "window.jupyterapp.shell.currentWidget.node"
# The course's own output: HTML of cells and of widgets, buttons included; not JupyterLab's, not plain text.
_OURS = ".jp-OutputArea .jp-RenderedHTMLCommon[data-mime-type='text/html'], .jp-OutputArea .jupyter-widgets"

_TEXTS_JS = """([ours, normal, large]) => {
  const notebook = window.jupyterapp.shell.currentWidget.node;
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const known = new Map();
  // Red, green and blue from 0 to 255 and alpha from 0 to 1 of any CSS colour.
  const parse = (text) => {
    if (!known.has(text)) {
      const exact = text.match(/^color\\(srgb ([\\d.e-]+) ([\\d.e-]+) ([\\d.e-]+)(?: \\/ ([\\d.e-]+))?\\)$/);
      if (exact) known.set(text, [255 * exact[1], 255 * exact[2], 255 * exact[3], exact[4] === undefined ? 1 : Number(exact[4])]);
      else {
        const plain = text.match(/^rgba?\\((\\d+), (\\d+), (\\d+)(?:, ([\\d.]+))?\\)$/);
        if (!plain) throw new Error(`a colour that is not understood: ${text}`);
        known.set(text, [Number(plain[1]), Number(plain[2]), Number(plain[3]), plain[4] === undefined ? 1 : Number(plain[4])]);
      }
    }
    return known.get(text);
  };
  const over = (top, alpha, bottom) => bottom.map((value, i) => alpha * top[i] + (1 - alpha) * value);
  const luminance = (colour) => {
    const [r, g, b] = colour.map(value => value / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const poor = [];
  let seen = 0;
  for (const root of notebook.querySelectorAll(ours)) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
      // Marks that stand beside their words, controls that cannot be used, and what is not shown, need no contrast.
      if (!text || element.closest("[aria-hidden='true'], style, script, :disabled, option") || !element.checkVisibility()) continue;
      const chain = [];
      for (let node = element; node; node = node.parentElement) chain.unshift(getComputedStyle(node));
      let ground = [255, 255, 255], opacity = 1;
      for (const style of chain) {
        opacity *= Number(style.opacity);
        const [r, g, b, alpha] = parse(style.backgroundColor);
        ground = over([r, g, b], alpha * opacity, ground);
      }
      const style = chain[chain.length - 1];
      const [r, g, b, alpha] = parse(element.closest('svg') ? style.fill : style.color);
      const contrast = ratio(over([r, g, b], alpha * opacity, ground), ground);
      const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
      seen += 1;
      if (contrast < (size >= 24 || (bold && size >= 18.66) ? large : normal)) poor.push(`${contrast.toFixed(2)}: ${text.slice(0, 60)}`);
    }
  }
  return {seen, poor: [...new Set(poor)]};
}"""


def texts(page: Any) -> tuple[int, list[str]]:
    """How many pieces of text the course's own output shows, and those whose contrast is too low, with the contrast."""
    found = page.evaluate(_TEXTS_JS, [_OURS, CONTRAST, CONTRAST_LARGE])
    return found["seen"], found["poor"]


def contrast(page: Any) -> tuple[int, list[str]]:
    """The same in both themes, first in that which the page has: the fewer pieces of both, and all whose contrast is too low.

    The page keeps the other one, so that every other notebook runs in the dark theme.
    """
    fewest, faults = sys.maxsize, []
    now = page.evaluate("() => document.body.dataset.jpThemeName")
    for theme in sorted(THEMES, key=lambda theme: theme != now):
        use_theme(page, theme)
        # On a busy machine JupyterLab shows the cells a while after it has changed the theme.
        page.wait_for_function(
            "ours => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll(ours)].some(node => node.checkVisibility())", arg=_OURS
        )
        seen, poor = texts(page)
        fewest = min(fewest, seen)
        faults += [f"{theme}: {text}" for text in poor]
    return fewest, faults


def use_theme(page: Any, name: str) -> None:
    """Change JupyterLab's theme to one of :data:`THEMES`, and wait until it is there."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=name)


def faults_of_headings(page: Any) -> list[str]:
    """What is wrong with the headings as they are shown: exactly one of the first level, and no level left out."""
    levels = page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll(
          '.jp-MarkdownCell .jp-RenderedMarkdown :is(h1, h2, h3, h4, h5, h6)')].map(heading => Number(heading.tagName[1]))"""
    )
    faults = [] if levels[:1] == [1] and levels.count(1) == 1 else [f"not one heading of the first level: {levels}"]
    return faults + [f"h{after} follows h{before}" for before, after in itertools.pairwise(levels) if after > before + 1]


def pictures(page: Any) -> list[dict[str, Any]]:
    """Every picture that is shown, with its alternative text, and whether it has loaded."""
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-Cell img')].map(
          image => ({alt: image.getAttribute('alt') ?? '', loaded: image.complete && image.naturalWidth > 0,
                     source: image.src.slice(0, 60)}))"""
    )


def dead_widgets(page: Any, expected: int) -> list[str]:
    """What is wrong with the widgets: fewer shown than cells have, or one that says that it cannot be shown."""
    page.wait_for_function(
        """expected => {
          const areas = [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-OutputArea-output')];
          return areas.filter(area => area.querySelector('.jupyter-widgets')).length >= expected;
        }""",
        arg=expected,
    )
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-OutputArea-output')]
          .map(area => area.innerText).filter(text => /Error displaying widget|Loading widget/.test(text))"""
    )


# A screen of 1280 × 720 pixels at 125 %, as on a projector, in CSS pixels.
PROJECTOR = {"width": 1024, "height": 576}
# CSS pixels of a row in a table: with more, a cell is a column of single words.
_HIGHEST_ROW = 105
_FIT_JS = """highest => {
  const faults = [];
  const cells = [...window.jupyterapp.shell.currentWidget.node.querySelectorAll('.jp-Cell')];
  cells.forEach((cell, index) => {
    const say = (node, words) => faults.push(`cell ${index}: ${words}: ${(node.innerText ?? node.alt ?? '').slice(0, 60)}`);
    const places = ['.jp-OutputArea-output', '.jp-RenderedMarkdown'].flatMap(place => [place, `${place} *`]).join(', ');
    for (const node of cell.querySelectorAll(places)) {
      // The inside of a drawing and of a slider is not laid out as text is.
      if (!node.checkVisibility() || node.closest('svg *, .noUi-target, mjx-container')) continue;
      if (node.clientWidth && node.scrollWidth > node.clientWidth + 1) say(node, `${node.scrollWidth} px in ${node.clientWidth}`);
      if (node.tagName === 'TR' && node.offsetHeight > highest) say(node, `a row of ${node.offsetHeight} px`);
    }
    const text = cell.querySelector('.jp-OutputArea')?.innerText ?? '';
    for (const number of text.match(/± *[\\d.]+e[+-]\\d+/g) ?? []) say(cell, `the number ${number}`);
    // Code may have dollars.
    const words = cell.querySelector('.jp-MarkdownCell .jp-RenderedMarkdown')?.cloneNode(true);
    for (const code of words?.querySelectorAll('code') ?? []) code.remove();
    if (words?.textContent.includes('$')) faults.push(`cell ${index}: mathematics that is not drawn: ${words.textContent.slice(0, 60)}`);
  });
  return faults;
}"""


def faults_of_fit(page: Any) -> list[str]:
    """What does not fit on a projector: output wider than its place, high rows, numbers nobody writes so, mathematics that is not drawn."""
    before = page.viewport_size
    assert page.evaluate("() => window.jupyterapp.shell.leftCollapsed"), "the list of files takes no room from the notebook"
    page.set_viewport_size(PROJECTOR)
    try:
        # The page is laid out again when the notebook has its new width.
        page.wait_for_function(f"width => {_OPEN_NODE}.getBoundingClientRect().right <= width", arg=PROJECTOR["width"])
        return page.evaluate(_FIT_JS, _HIGHEST_ROW)
    finally:
        page.set_viewport_size(before)
