"""One look for all figures: colour is the training category, shape the recipe (the model, where each is its own)."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from oodjax.files import write_text, write_whole
from oodjax.report.data import Results, singular
from oodjax.report.scene import Mark, Scene, Tag, png, svg, text_width

WIDTH = 420.0
SMALL, BODY = 10.5, 11.5
# Role -> its colour on paper and on a dark page. Ink and the hues keep 20 units of CIELAB apart and a contrast of
# 3 to their page, also as people see them who lack the red or the green receptors.
ROLES = {
    "paper": ("#ffffff", "#1a1a1a"),
    "ink": ("#1b1b1b", "#e6e6e6"),
    "soft": ("#6a6a6a", "#a3a3a3"),
    "grid": ("#e6e6e6", "#333333"),
    "wash": ("#eeeeee", "#2b2b2b"),
    "id": ("#858585", "#9a9a9a"),
    "ood": ("#c2500a", "#f08a4b"),
    "hue-1": ("#a31509", "#d05f5f"),
    "hue-2": ("#4182df", "#9dc6f5"),
    "hue-3": ("#3fa385", "#69e498"),
    "hue-4": ("#6a2c87", "#9d85e3"),
    "hue-5": ("#cb7f14", "#ecaf2f"),
    "hue-6": ("#0f6d77", "#4cb2a3"),
    "hue-7": ("#ba7ebb", "#a15397"),
    "hue-8": ("#855243", "#de874c"),
    "hue-9": ("#2f46c7", "#446ef5"),
    "hue-10": ("#91924f", "#ebf083"),
}
CATEGORIES = {
    "baseline": "ink",
    "adversarial": "hue-1",
    "augmentation": "hue-2",
    "ssl": "hue-3",
    "improved": "hue-4",
    "freezing": "hue-5",
    "vit": "hue-6",
}
SPARE = ("hue-7", "hue-8", "hue-9", "hue-10")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "d", "p", "h")
FILLS = ("full", "hollow", "barred")
LABELS = {
    "accuracy": "Accuracy",
    "ece": "ECE",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "auroc_correct_vs_ood": "AUROC, correct ID vs OOD",
    "auroc_incorrect_vs_ood": "AUROC, incorrect ID vs OOD",
    "auroc_correct_vs_incorrect": "AUROC, correct vs incorrect ID",
}
_LONGEST = 300  # characters that a line of a figure could hold; longer texts are not measured


class Drawing(NamedTuple):
    """A finished figure and what it says, in words and numbers."""

    scene: Scene
    caption: str

    @property
    def width(self) -> int:
        """CSS pixels."""
        return round(self.scene.width)

    @property
    def height(self) -> int:
        """CSS pixels."""
        return round(self.scene.height)


class Cast(NamedTuple):
    """The study's recipes in the order of its models, and how each is drawn; models of one recipe share a mark.

    Attributes:
      of: model -> recipe.
      category: recipe -> training category.
      mark: recipe -> mark.
      baseline: the recipe that others are compared with.
    """

    of: dict[str, str]
    category: dict[str, str]
    mark: dict[str, Mark]
    baseline: str | None

    @property
    def replicated(self) -> bool:
        return len(self.mark) < len(self.of)

    def mean(self, values: pd.Series | pd.DataFrame) -> pd.Series | pd.DataFrame:
        """Of values per model: their means per recipe, in the cast's order."""
        means = values.groupby(self.of.get, sort=False).mean()
        return means.reindex([recipe for recipe in self.mark if recipe in means.index])


@lru_cache(maxsize=4)
def cast(study: Results) -> Cast:
    """Who is drawn, and how."""
    named = study.facts["recipe"] if "recipe" in study.facts else study.facts["model"]
    of = {model: str(named[model]) or model for model in study.models}
    category = {recipe: str(study.facts.at[model, "category"]) for model, recipe in reversed(of.items())}
    colours, mark = colour_of(study), {}
    for name in study.categories:
        for i, recipe in enumerate(dict.fromkeys(r for r in of.values() if category[r] == name)):
            mark[recipe] = Mark(colours[name], SHAPES[i % len(SHAPES)], FILLS[(i // len(SHAPES)) % len(FILLS)])
    baseline = of.get(study.baseline, study.baseline) if study.baseline is not None else None
    return Cast(of, category, mark, baseline if baseline in mark else None)


def colour_of(study: Results) -> dict[str, str]:
    """Training category -> role of its colour; those the paper does not have take the spare ones in turn."""
    spare, colours = list(SPARE), {}
    for category in study.categories:
        known = CATEGORIES.get(singular(category))
        colours[category] = known or (spare.pop(0) if spare else "soft")
    return colours


def marks(study: Results) -> dict[str, Mark]:
    """Model -> its mark."""
    drawn = cast(study)
    return {model: drawn.mark[recipe] for model, recipe in drawn.of.items()}


def tag(study: Results, model: str, label: str, detector: str = "", dataset: str = "") -> Tag:
    """What a mark of one model says."""
    drawn = cast(study)
    recipe = drawn.of[model]
    return Tag(label, model, recipe, drawn.category[recipe], detector, dataset)


def recipe_tag(study: Results, recipe: str, label: str, detector: str = "", dataset: str = "") -> Tag:
    """What a mark of all models of a recipe says; of the model, where it is the only one."""
    drawn = cast(study)
    members = [model for model, name in drawn.of.items() if name == recipe]
    return Tag(label, members[0] if len(members) == 1 else "", recipe, drawn.category[recipe], detector, dataset)


def css() -> str:
    """Rules that give each role in inlined figures a variable, `--figure-ROLE`, of its own on light and dark pages."""
    light, dark = (";".join(f"--figure-{role}:{colours[i]}" for role, colours in ROLES.items()) for i in (0, 1))
    rules = (
        f"svg .fill-{role}{{fill:var(--figure-{role})}}svg .line-{role}{{stroke:var(--figure-{role})}}"
        for role in ROLES
    )
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{''.join(rules)}\n"


def paper_colours() -> dict[str, str]:
    """Role -> colour, as in files."""
    return {role: colours[0] for role, colours in ROLES.items()}


def shorten(text: str, room: float, size: float) -> str:
    """The text, its middle replaced by an ellipsis where it is wider than `room` pixels; at least a letter is left."""
    if len(text) <= _LONGEST and text_width(text, size) <= room:
        return text

    def cut(keep: int) -> str:
        return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"

    kept = range(1, min(len(text), _LONGEST + 1))
    return cut(max(1, bisect_right(kept, room, key=lambda keep: text_width(cut(keep), size))))


def save(drawing: Drawing, stem: Path, title: str = "") -> None:
    """stem.svg and stem.png."""
    write_text(stem.with_suffix(".svg"), svg(drawing.scene, paper_colours(), title))
    content = png(drawing.scene, paper_colours())
    write_whole(stem.with_suffix(".png"), lambda file: file.write(content))
