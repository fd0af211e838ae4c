"""The words that page and documentation explain."""

from __future__ import annotations

from test_public_api import loaded_after

from oodjax.detectors import names
from oodjax.report.glossary import DETECTORS, TERMS, explain
from oodjax.zoo import CATEGORIES


def test_each_detector_is_explained_in_its_order():
    assert [n for n in names() if n in DETECTORS] == [*DETECTORS] and DETECTORS.keys() >= {
        "gradnorm",
        "relation",
        "cadref",
    }


def test_what_stands_in_tables_and_legends_is_explained():
    assert {"ID", "OOD", "AUROC", "FPR95", "ECE", "accuracy", "near", "far", "extreme", "synthetic"} <= {*TERMS}
    assert {*CATEGORIES} - {"vit"} <= {*TERMS}


def test_an_explanation_is_a_whole_sentence():
    for text in (*TERMS.values(), *DETECTORS.values()):
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".") and "  " not in text


def test_a_detector_of_your_own_is_explained_by_its_docstring():
    assert explain("vim", "Something else.") == DETECTORS["vim"]
    assert explain("mine", "\n  Distance to mine.\n\n  More.") == "Distance to mine."
    assert explain("mine") == ""


def test_the_words_alone_need_no_heavy_library():
    assert not loaded_after("import oodjax.report.glossary") & {"matplotlib", "pandas", "jax", "numpy"}
