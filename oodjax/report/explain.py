"""Words of the field in the page's text, each a link to its explanation, which the script shows beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from markupsafe import Markup, escape

from oodjax.report.glossary import DETECTORS, TERMS

# Of the terms, those that stand out from a sentence wherever they are; "near" or "seed" would be links all over it.
MARKED = ("ID", "OOD", "AUROC", "FPR95 (ID)", "FPR95", "ECE", "ROC", "ANOVA", "Spearman's ρ")


def anchor(term: str) -> str:
    """The id of a term's entry in the glossary."""
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def term(name: str, shown: str | None = None) -> Markup:
    """A link to a term's entry."""
    return Markup('<a class="term" href="#{}">{}</a>').format(anchor(name), shown or name)


def explained(text: str, detectors: Iterable[str] = ()) -> Markup:
    """The text with a link at the first place of each term, and of each of these detectors, that it holds."""
    seen: set[str] = set()

    def link(found: re.Match[str]) -> str:
        name = str(Markup(found[1]).unescape())
        if name in seen:
            return found[0]
        seen.add(name)
        return str(term(name))

    return Markup(_words(tuple(detectors)).sub(link, str(escape(text))))


@cache
def _words(detectors: tuple[str, ...]) -> re.Pattern[str]:
    words = "|".join(re.escape(str(escape(name))) for name in sorted((*MARKED, *detectors), key=len, reverse=True))
    return re.compile(rf"(?<![\w(#&;-])({words})(?![\w)-])")


def detector_words(detectors: Sequence[str], docs: Mapping[str, str]) -> dict[str, str]:
    """Detector -> what it does; a label such as `knn:k=10` is explained by its method and its options."""
    found = {}
    for label in detectors:
        name, _, options = label.partition(":")
        says = DETECTORS.get(name) or docs.get(name, "").strip().split("\n")[0]
        if says:
            found[label] = f"{says} With {options.replace('+', ', ')}." if options else says
    return found


def glossary(detectors: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Entries of the glossary: anchor, word, explanation; terms in reading order, then the detectors."""
    return [
        *((anchor(name), name, says) for name, says in TERMS.items()),
        *((anchor(name), name, says) for name, says in detectors.items()),
    ]
