"""Every public name is in the reference, and the rest of the made pages."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import griffe

import oodjax
from oodjax.report.glossary import DETECTORS, TERMS
from website import glossary, reference
from website.entries import split


def test_every_name_of_the_package_and_of_its_public_modules_is_listed():
    listed = {name for names in reference.names().values() for name in names}
    expected = set()
    for name in oodjax.__all__:
        value = getattr(oodjax, name)
        if isinstance(value, ModuleType):
            assert (inside := {f"oodjax.{name}.{n}" for n in reference.public(value)}), f"{name} has no public name"
            expected |= inside
        else:
            expected.add(f"oodjax.{name}")
    assert expected - listed == set()
    assert {"oodjax.analysis.anova", "oodjax.metrics.fpr95_id", "oodjax.detectors.register"} <= expected


def test_public_names_of_a_module_without_a_list_are_its_own():
    metrics = reference.public(importlib.import_module("oodjax.metrics"))
    assert {"auroc", "ece", "evaluate"} <= {*metrics} and not {"softmax", "host_array", "ArrayLike"} & {*metrics}


def test_each_name_is_on_its_page_with_an_anchor_of_its_own():
    pages = reference.pages()
    for page, names in reference.names().items():
        text = pages[f"reference/{page}.md"]
        for name in names:
            assert f"{{ #{name} }}" in text, name
    assert "::: oodjax.analysis.anova.anova\n" in pages["reference/analysis.md"]
    assert "`vim`, `ash`" in pages["reference/detectors.md"], "a constant shows what it holds"


def test_the_glossary_page_has_every_word():
    text = glossary.page()
    for words in (TERMS, DETECTORS):
        for name, explained in words.items():
            assert name in text and explained in text


def test_several_names_in_one_entry_become_entries():
    doc = """Something, several: in one.

    Args:
      a, b: both of
        them, long: text.
      c: alone.
      d, e: last.

    Returns:
      f, g: as they come.
    """
    assert split(inspect.cleandoc(doc)) == inspect.cleandoc(
        """Something, several: in one.

    Args:
      a: both of
        them, long: text.
      b: see `a`.
      c: alone.
      d: last.
      e: see `d`.

    Returns:
      f, g: as they come.
    """
    )


def test_every_docstring_is_understood(caplog):
    """The builder leaves out what it cannot read, and says nothing."""
    package = griffe.load(
        "oodjax",
        search_paths=[str(Path(oodjax.__file__).parents[1])],
        extensions=griffe.load_extensions("website.entries"),
    )
    read = 0
    for home in re.findall(r"^::: (?:oodjax\.)?(\S+)$", "\n".join(reference.pages().values()), re.MULTILINE):
        found = package[home]
        for part in (found, *(m for name, m in found.members.items() if not name.startswith("_") and not m.is_alias)):
            if part.docstring is not None:
                part.docstring.parse("google", warn_missing_types=False)
                read += 1
    assert read > 100
    assert [record.getMessage() for record in caplog.records] == []
