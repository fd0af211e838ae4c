"""Detectors with options as text: what a label says, its one canonical form, and what is refused."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from oodjax import detectors
from oodjax.detectors import NAMES
from oodjax.detectors.labels import parse

SAID = {
    "msp": ("msp", {}, "msp"),
    "vim:dim=4": ("vim", {"dim": 4}, "vim:dim=4"),
    "vim:dim=4.0": ("vim", {"dim": 4}, "vim:dim=4"),
    "vim:dim=4e0": ("vim", {"dim": 4}, "vim:dim=4"),
    "vim:dim=none": ("vim", {"dim": None}, "vim:dim=none"),
    "odin:noise=1.4e-3+temperature=1e+3": (
        "odin",
        {"noise": 0.0014, "temperature": 1000},
        "odin:temperature=1000+noise=0.0014",
    ),
    "gen:top_m=3+gamma=.5": ("gen", {"gamma": 0.5, "top_m": 3}, "gen:gamma=0.5+top_m=3"),
    "fdbd:distance_as_normalizer=False": (
        "fdbd",
        {"distance_as_normalizer": False},
        "fdbd:distance_as_normalizer=false",
    ),
    "ats:tail=left": ("ats", {"tail": "left"}, "ats:tail=left"),
    "ats:tail=two-sided": ("ats", {"tail": "two-sided"}, "ats:tail=two-sided"),
    "gram:powers=(1, 2,)": ("gram", {"powers": (1, 2)}, "gram:powers=(1,2)"),
}


@pytest.mark.parametrize("text", SAID)
def test_a_label_says_a_name_and_options_and_has_one_canonical_text(text):
    name, options, canonical = SAID[text]
    found = parse(text)
    assert (found.name, found.options, found.label) == (name, options, canonical)
    assert {key: type(value) for key, value in found.options.items()} == {k: type(v) for k, v in options.items()}
    assert parse(canonical) == found and parse(canonical).label == canonical
    assert detectors.create(text) == detectors.create(name, **options)
    assert all(parse(name).label == name for name in NAMES)


REFUSED = {
    "vimm:dim=4": r"unknown detector 'vimm'; there are: msp, .*gradnorm, .*. Did you mean 'vim:dim=4'\?$",
    "mahalanobis": r"Did you mean 'mds'\?$",
    "": "unknown detector ''; there are: msp",
    ":dim=4": "unknown detector ''; there are: msp",
    "vim:dims=4": "^vim has no hyper-parameter dims; it takes: dim$",
    "msp:k=1": "^msp has no hyper-parameter k; it takes: none$",
    "vim:": "^'vim:' is no detector with options: write NAME, NAME:OPTION=VALUE or .*, for example vim:dim=512$",
    "vim:dim": "is no detector with options",
    "vim:dim=": "is no detector with options",
    "vim:=4": "is no detector with options",
    "vim:dim=4+": "dim must be a whole number of at least 1, got '4\\+'",
    "vim:dim=4+dim=5": "^'vim:dim=4\\+dim=5' gives dim twice$",
    "vim:dim=0": "vim: dim must be a whole number of at least 1, got 0",
    "vim:dim=many": "vim: dim must be a whole number of at least 1, got 'many'",
    "knn:k=nan": "^'knn:k=nan': 'nan' is no number that an option can have$",
    "react:percentile=101": r"percentile must be a number in \[0, 100\], got 101",
    "odin:noise=0.5": "noise must be one of 0.0014, 0.0028",
    "ats:tail=up": "tail must be one of two-sided, left, right, got 'up'",
    f"vim:dim={'9' * 5000}": "is no number that an option can have",
    f"vim:{'x' * 5000}=1": "^vim has no hyper-parameter x",
    "gram:powers=" + 9000 * "(" + 9000 * ")": "each of powers must be a whole number",
}


@pytest.mark.parametrize("text", REFUSED, ids=[text[:40] for text in REFUSED])
def test_what_a_label_cannot_say_is_refused_in_a_sentence(text):
    for call in (parse, detectors.create, detectors.grid):
        with pytest.raises(ValueError, match=REFUSED[text]) as caught:
            call(text)
        assert "\n" not in str(caught.value)


def test_an_option_by_label_and_by_keyword_is_an_error():
    with pytest.raises(ValueError, match="'vim:dim=4' gives dim already: leave out the keyword, or name 'vim'"):
        detectors.create("vim:dim=4", dim=4)
    assert detectors.create("gen:gamma=1", top_m=3).options == {"gamma": 1, "top_m": 3}


def test_what_a_label_gives_is_not_searched():
    assert detectors.grid("vim:dim=4") == [{"dim": 4}]
    assert detectors.grid("gen:top_m=3") == [{"gamma": g, "top_m": 3} for g in (0.01, 0.1, 0.5, 1, 2, 5, 10)]
    assert detectors.grid("odin:temperature=10") == [{"temperature": 10, "noise": e} for e in (0.0014, 0.0028)]
    assert detectors.reads(["knn:k=3", "msp"]) == detectors.reads(["knn"])
    stats, test = oracles.stats(), oracles.problem().test
    points, notes = detectors.search_space("vim:dim=4", stats)
    assert points == [detectors.create("vim", dim=4)] and notes == []
    scores = {label: np.asarray(detectors.create(label).fit(stats).score(test)) for label in ("vim:dim=4", "vim:dim=5")}
    np.testing.assert_array_equal(scores["vim:dim=4"], detectors.create("vim", dim=4).fit(stats).score(test))
    assert np.abs(scores["vim:dim=4"] - scores["vim:dim=5"]).max() > 1e-3


def test_what_a_problem_cannot_carry_is_an_error_where_it_was_given_and_a_note_where_it_was_searched():
    stats = oracles.stats()
    size = len(stats.features)
    with pytest.raises(ValueError, match=f"^knn:k={size + 1}: k {size + 1} exceeds the bank's {size} features$"):
        detectors.search_space(f"knn:k={size + 1}", stats)
    with pytest.raises(ValueError, match=f"^vim:dim=999: dim 999 exceeds the {stats.dim} features$"):
        detectors.search_space("vim:dim=999", stats)
    points, notes = detectors.search_space("gen:top_m=999+gamma=1", stats)
    assert points == [detectors.create("gen", gamma=1, top_m=stats.classes)]
    assert notes[-1] == detectors.Note("gen:top_m=999+gamma=1", "searched capped instead")
