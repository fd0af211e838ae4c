"""Figures inside the page: their SVG as markup whose colours the page decides, within a budget."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

BUDGET = 3_400_000  # bytes of figures: with tables, thumbnails and script the page stays below 5 MB

_STYLE = re.compile(r"<style\b.*?</style>", re.S)
_OPENING = re.compile(r"<svg\b[^>]*?\bviewBox=\"([^\"]*)\"[^>]*>")


def inlined(svg: str, title: str, width: int) -> Markup:
    """A figure's file as an element of a page: without the colours of paper, as wide as the page wants it.

    Args:
      svg: the whole file.
      title: what a screen reader calls it.
      width: in CSS pixels, at which its text is as large as it was drawn.
    """
    label = escape(title)
    opening = '<svg class="figure" viewBox="{}" role="img" aria-label="{}" style="--w: {}px">'
    text = _OPENING.sub(lambda found: opening.format(found[1], label, width), _STYLE.sub("", svg), count=1)
    return Markup(text)


def fitting(sizes: Mapping[str, int], budget: int = BUDGET) -> set[str]:
    """The keys whose figures go into the page: the smallest first, as many as the budget holds."""
    kept, total = set(), 0
    for key in sorted(sizes, key=lambda k: sizes[k]):
        total += sizes[key]
        if total > budget:
            break
        kept.add(key)
    return kept
