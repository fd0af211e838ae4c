"""A page for every registered detector, made from its method, its docstring and the figures of the studies."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from oodjax import detectors
from oodjax.detectors.base import METHODS, Method
from oodjax.report.glossary import explain
from website import pictures, study

RECORD = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu.json"
FAMILIES = {
    "classification": "what a classifier says: logits",
    "feature": "the features before the head",
    "hybrid": "features and logits, or the head's weights",
    "intermediate": "layers before the last",
    "gradient": "gradients of the head's weights",
}
NEEDS = {
    "logits": "logits",
    "features": "features",
    "gram": "GRAM's summaries of intermediate layers (`oodjax.summarize`)",
    "layer_means": "means of intermediate layers (`oodjax.summarize`)",
    "odin": "scores of perturbed images (`oodjax.odin_scores`)",
}
BRIEFLY = {"logits": "logits", "features": "features", "gram": "maps", "layer_means": "maps", "odin": "gradients"}
READS = {
    "label_sums": "class means",
    "correct_sums": "means of the correctly classified",
    "second": "second moments of the features",
    "softmax_sums": "mean probabilities of each predicted class",
    "gram": "GRAM's bounds of each class",
    "features": "the bank of training features",
    "layer_means": "layer means of every training image",
}


class Words(NamedTuple):
    """A docstring in its parts: score in words, where it is published, the rest, its cost, what is done otherwise."""

    score: str
    source: str
    rest: str
    cost: str
    deviations: str


def docstring(method: Method) -> str:
    return (method.score.__doc__ or getattr(method.score_many, "__doc__", None) or "").strip()


def read(doc: str) -> Words:
    text = re.sub(r"\s+", " ", doc.replace("\n\n", " ¶ "))
    text, _, deviations = text.partition("Deviations: ")
    source = re.search(r"\(([^()]*(?:(?:19|20)\d\d|arXiv)[^()]*(?:\([^()]*\)[^()]*)*)\)", text)
    cited = source[1] if source else ""
    text = text.replace(f" ({cited})", "", 1) if cited else text
    score, _, rest = text.partition(" ¶ ")
    costs = re.search(r"Cost: (.*?)(?:\.(?: |$))", rest)
    rest = rest.replace(costs[0], "") if costs else rest
    paragraphs = "\n\n".join(part.strip() for part in rest.split("¶") if part.strip())
    return Words(
        score.strip(), cited, paragraphs, costs[1] if costs else "", re.sub(r"\s*¶\s*", " ", deviations).strip()
    )


def pages() -> dict[str, str]:
    """Path -> Markdown of each detector's page, and of their list."""
    return {f"detectors/{name}.md": page(name) for name in detectors.names()} | {"detectors/index.md": index()}


def navigation() -> list[Any]:
    by_family = {family: [n for n, f in detectors.families().items() if f == family] for family in _families()}
    return ["detectors/index.md", *({family: [_entry(n) for n in found]} for family, found in by_family.items())]


def page(name: str) -> str:
    method = METHODS[name]
    words = read(docstring(method))
    parts = [
        f"# {name}",
        explain(name, docstring(method)),
        _score(words),
        _lines(method),
        "## When to use it\n\n" + "\n".join(f"- {line}" for line in advice(name)),
        "## What it reads\n\n" + _table(facts(method)),
        *_options(method),
        *_deviations(words),
        *_studies(name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def advice(name: str) -> list[str]:
    """What the method's needs and the study's figures say of where it fits."""
    method = METHODS[name]
    lines = [_reach(method), _effort(method)]
    if name in study.standings():
        found = study.standings()[name]
        best = max(found.by_category, key=lambda category: found.by_category[category])
        worst = min(found.by_category, key=lambda category: found.by_category[category])
        lines.append(
            f"On the digits study it is best on {best} OOD images (AUROC {found.by_category[best]:.1f} %) and weakest "
            f"on {worst} ones ({found.by_category[worst]:.1f} %)."
        )
        lines.append(
            f"There its mean AUROC falls to {found.worst:.1f} % with the recipe that suits it "
            f"least (`{found.worst_recipe}`)."
        )
    return lines


def _reach(method: Method) -> str:
    if "odin" in method.needs:
        return "Needs gradients through the whole network, for each image: the most costly of the study's detectors."
    if {"gram", "layer_means"} & {*method.needs}:
        return "Needs the maps of intermediate layers, which a network has to return beside logits and features."
    if "features" in method.needs:
        return "Needs the features that enter the last layer, beside the logits."
    return "Needs the logits alone: works with any classifier, also where nothing but its answers is at hand."


def _effort(method: Method) -> str:
    if method.reads_validation:
        return "Is fitted to the logits and labels of held-out ID images; training images are not needed."
    if not method.reads:
        return "Needs no training images."
    bank = ", and keeps features of single images" if "features" in method.reads else ""
    return f"Needs one pass over the training images, with labels{bank}."


def facts(method: Method) -> list[tuple[str, str]]:
    """What a detector reads and takes, by name."""
    reads = ", ".join(READS[name] for name in method.reads) or "nothing"
    found = [
        ("family", f"{method.family}: {FAMILIES[method.family]}" if method.family in FAMILIES else method.family),
        ("of each image", ", ".join(NEEDS[name] for name in method.needs)),
        ("of the training images", reads),
        ("of held-out ID images", "logits and labels" if method.reads_validation else "nothing"),
    ]
    costs = [("cost", read(docstring(method)).cost), ("time", cost(method.name))]
    return found + [(what, text) for what, text in costs if text]


def cost(name: str) -> str:
    """What scoring takes, as the benchmark recorded it; empty for what it has not measured."""
    record = _record()
    if name == "odin":
        passes = record["odin"][0]
        point, grid = (passes[f"forwards_per_{what}"]["median"] for what in ("point", "grid"))
        return f"{point:.1f} forward passes an image for one setting, {grid:.1f} for the grid"
    if name not in record["scoring"]:
        return ""
    each = record["scoring"][name]["microseconds"]
    return (
        f"{each:.{1 if each < 10 else 0}f} µs an image beside the forward pass, on {record['device']['cpus']} CPU "
        "cores with 2048 features and 1000 classes"
    )


@cache
def _record() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def _score(words: Words) -> str:
    source = f"\n\nSource: {words.source}." if words.source else ""
    score = words.score if words.score.endswith((".", ":")) else f"{words.score}."
    return f"## Score\n\n> {_escape(_signs(score))}\n\n{_escape(words.rest)}{source}"


def _signs(score: str) -> str:
    """A minus that leads, which Markdown would make a list of, and those within, as minus signs."""
    return re.sub(r"(^| )- ", "\\1\u2212 ", score)


def _deviations(words: Words) -> list[str]:
    text = words.deviations
    return [f"## What differs from the paper\n\n{_escape(text[:1].upper() + text[1:])}"] if text else []


def _options(method: Method) -> list[str]:
    if not method.options:
        return ["## Options\n\nNone."]
    searched = {key: list(dict.fromkeys(p[key] for p in method.grid if key in p)) for key in method.options}
    lines = ["| option | default | searched in the study |", "|---|---|---|"]
    for key, value in method.options.items():
        default = "chosen by the training statistics" if value is None else f"`{value}`"
        grid = ", ".join(f"`{v}`" for v in searched[key]) or "the default alone"
        lines.append(f"| `{key}` | {default} | {grid} |")
    return ["## Options\n\n" + "\n".join(lines)]


def _studies(name: str) -> list[str]:
    lines = []
    if name in study.paper().index:
        said = study.paper().loc[name]
        rank = (
            ""
            if said.isna()["mean_rank"]
            else (f": mean rank {said['mean_rank']:.2f} (95 % interval {said['low']:.2f} to {said['high']:.2f})")
        )
        lines.append(
            f"**The paper** (56 ImageNet models, 8 OOD sets, [arXiv 2601.10836](https://arxiv.org/abs/2601.10836)): "
            f"{said['place']} of 21 by mean rank{rank}."
        )
    if name not in study.standings():
        known = "It was not among the 21 detectors of the study." if name not in detectors.NAMES else ""
        return [f"## In the studies\n\n{known}"] if known else []
    found = study.standings()[name]
    lines.append(
        f"**The digits study** ({_trained()}, 8 OOD sets): place {found.rank} of "
        f"{found.detectors}, mean rank {found.mean_rank:.1f} (95 % interval over recipes {found.low:.1f} to "
        f"{found.high:.1f}), mean AUROC {found.mean:.1f} %. A dot is a recipe, the bar their mean:"
    )
    return ["## In the studies\n\n" + "\n\n".join(lines), pictures.strip(study.rows(), name)]


def _trained() -> str:
    rows = study.rows()
    seeds = int(rows["seeds"].max())
    each = "one small network each" if seeds == 1 else f"{seeds} small networks each"
    return f"{rows['recipe'].nunique()} recipes of training, {each}"


def index() -> str:
    lines = ["| detector | | of each image | mean rank | mean AUROC |", "|---|---|---|---|---|"]
    standings = study.standings()
    for name in sorted(detectors.names(), key=lambda n: standings[n].rank if n in standings else len(METHODS)):
        found, method = standings.get(name), METHODS[name]
        figures = f"{found.mean_rank:.1f} | {found.mean:.1f} %" if found else "not in the study |"
        text = explain(name, docstring(method))
        lines.append(
            f"| [`{name}`]({name}.md) | {_escape(text)} | {', '.join(BRIEFLY[n] for n in method.needs)} | {figures} |"
        )
    return (
        "---\nhide: [toc]\n---\n\n# Detectors\n\nBest first in the digits study: small networks on small images. For "
        "your model [`oodjax recommend`](../howto/commands.md) ranks them on your own held-out images.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _families() -> list[str]:
    return list(dict.fromkeys(detectors.families().values()))


def _entry(name: str) -> dict[str, str]:
    return {name: f"detectors/{name}.md"}


def _call(method: Method) -> str:
    given = {key: value for key, value in method.options.items() if value is not None and key in method.grid[0]}
    return f"detectors.create({', '.join([json.dumps(method.name), *(f'{k}={v!r}' for k, v in given.items())])})"


def _lines(method: Method) -> str:
    fit = f"det = {_call(method)}.fit({_fitted_to(method)})"
    return f"```python\n{fit}\ndet.score(outputs)  # higher = more in-distribution\n```"


def _fitted_to(method: Method) -> str:
    statistics = "stats" if method.reads else "TrainStatistics.of_head(head)"
    return f"{statistics}, validation" if method.reads_validation else statistics


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)])


def _escape(text: str) -> str:
    """Signs that Markdown would take for its own, outside of code."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([|*_<>\[\]])", r"\\\1", part) for i, part in enumerate(parts))
