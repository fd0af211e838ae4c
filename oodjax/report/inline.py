"""Figures inside the page: their SVG as markup, as small as it looks the same, within a budget."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

BUDGET = 3_400_000  # bytes of figures: with tables, thumbnails and script the page stays below 5 MB

_PROLOGUE = re.compile(r"^.*?(?=<svg\b)|<metadata>.*?</metadata>|<style\b.*?</style>|<!--.*?-->", re.S)
_OPENING = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.S)
_GEOMETRY = re.compile(r"(?<= )(d|x|y|transform|points)=\"([^\"]*)\"")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FONTS = re.compile(r"'DejaVu Sans'(, '[^']+'| ?, [\w-]+)*")
_UNTURNED = re.compile(r" transform=\"rotate\(-?0 [^\"]*\)\"")


def inlined(svg: str, title: str, width: int) -> Markup:
    """The drawing as an element of a page: no prologue, hundredths of a point, the page's own fonts.

    Args:
      svg: a whole file.
      title: what a screen reader calls it.
      width: in CSS pixels, at which its text is as large as it was drawn.
    """
    text = _PROLOGUE.sub("", svg)
    text = re.sub(r">\s+<", "><", _UNTURNED.sub("", text)).replace("<defs></defs>", "").replace("<defs/>", "")
    text = _GEOMETRY.sub(lambda m: f'{m[1]}="{_DECIMALS.sub(_cut, " ".join(m[2].split()))}"', text)
    text = _FONTS.sub("var(--plot)", text)
    label = escape(title)
    opening = f'<svg viewBox="\\1" role="img" aria-label="{label}" style="--w: {width}px">'.replace("\\1", "{box}")
    return Markup(_OPENING.sub(lambda m: opening.replace("{box}", m[1]), text, count=1).strip())


def _cut(found: re.Match[str]) -> str:
    return found[1].rstrip("0").rstrip(".")


def fitting(sizes: Mapping[str, int], budget: int = BUDGET) -> set[str]:
    """The keys whose figures go into the page: the smallest first, as many as the budget holds."""
    kept, total = set(), 0
    for key in sorted(sizes, key=lambda k: sizes[k]):
        total += sizes[key]
        if total > budget:
            break
        kept.add(key)
    return kept
