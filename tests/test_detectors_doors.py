"""What users say to a detector: other names, NumPy's numbers, arrays in place of outputs; and how one compares."""

from __future__ import annotations

import re

import numpy as np
import oracles
import pytest

from oodjax import Outputs, detectors

CLASSES, FEATURES = oracles.CLASSES, oracles.FEATURES
VALUES = np.ones((3, 2))


def refuses(match, error=(ValueError, TypeError)):
    return pytest.raises(error, match=match)


def test_numpys_numbers_are_numbers():
    for name, options in (
        ("knn", {"k": 5}),
        ("ash", {"percentile": 70}),
        ("gen", {"gamma": 0.5, "top_m": 3}),
        ("vim", {"dim": 4}),
        ("fdbd", {"distance_as_normalizer": False}),
        ("gram", {"powers": (1, 2)}),
        ("nnguide", {"k": 3}),
    ):
        given = {
            key: np.asarray(value) if isinstance(value, tuple) else np.asarray(value)[()]
            for key, value in options.items()
        }
        assert detectors.create(name, **given) == detectors.create(name, **options)
        assert hash(detectors.create(name, **given)) == hash(detectors.create(name, **options))
        assert detectors.create(name, **given).options == detectors.create(name, **options).options
    assert [detectors.create("react", percentile=q).options["percentile"] for q in np.arange(70, 72)] == [70, 71]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mahalanobis", "mds"),
        ("Mahalanobis", "mds"),
        ("energy", "ebo"),
        ("MaxLogit", "mls"),
        ("ViM", "vim"),
        ("GradNorm", "gradnorm"),
        ("nn-guide", "nnguide"),
        ("relative_mahalanobis", "rmds"),
        ("softmax", "msp"),
        ("temperature_scaling", "tempscale"),
        ("kl-matching", "klm"),
        ("raect", "react"),
        ("fdbdd", "fdbd"),
        ("ASH-B", "ash"),
        ("generalized entropy", "gen"),
        ("shannon entropy", "entropy"),
        ("Mahalanobis++", "mdspp"),
        ("mahalanobis plus plus", "mdspp"),
        ("gaussian_mixture", "gmm"),
        ("Neural-Collapse", "neco"),
    ],
)
def test_other_names_and_near_misses_are_recognised(name, meant):
    for call in (detectors.create, detectors.grid):
        said = rf"unknown detector '{re.escape(name)}'; there are: msp, .*gradnorm, .* Did you mean '{meant}'\?$"
        with refuses(said, ValueError):
            call(name)


@pytest.mark.parametrize("name", ["", "resnet50", "x" * 5000, None, 5, ["msp"], np.array(["msp"])])
def test_no_guess_is_made_where_nothing_is_near(name):
    with refuses(r"^unknown detector .{0,50}; there are: msp, mls.*gradnorm, entropy.*$", ValueError):
        detectors.create(name)


def test_arrays_in_place_of_statistics_or_outputs_are_refused():
    p, det = oracles.problem(), detectors.create("mds")
    for stats in (p.train.features, p.train, None):
        with refuses(r"mds: fit takes statistics = TrainStatistics.collect\(Outputs\(.*\), head\), got", TypeError):
            det.fit(stats)
    with refuses(r"mds: validation takes oodjax.Outputs\(logits=..., features=...\), got ndarray", TypeError):
        det.fit(oracles.stats(), p.train.labels)
    with refuses(r"mds: score takes oodjax.Outputs\(logits=..., features=...\), got ndarray of float32", TypeError):
        det.fit(oracles.stats()).score(np.asarray(p.test.features))
    with refuses("score needs at least one detector and one sample, got 1 and 0"):
        det.fit(oracles.stats()).score(p.test[:0])
    with refuses("score needs at least one detector and one sample, got 0 and "):
        detectors.score_all((), p.test)


def test_detectors_compare_by_settings_and_arrays():
    stats, other = oracles.stats(), oracles.stats("signed")
    det = detectors.create("vim", dim=4)
    fitted, again, moved = det.fit(stats), det.fit(stats), det.fit(other)
    assert fitted == again and hash(fitted) == hash(again)
    assert fitted != det and fitted != moved and fitted != detectors.create("vim", dim=5).fit(stats)
    assert fitted != "vim" and len({fitted, again, det}) == 2
    assert detectors.create("msp") != detectors.create("mls")


def test_representations_are_short():
    p, stats = oracles.problem(), oracles.stats()
    assert repr(detectors.create("vim", dim=4).fit(stats)) == f"vim(dim=4) fitted on {FEATURES} features"
    assert repr(detectors.create("vim", dim=4)) == "vim(dim=4), not fitted"
    assert repr(detectors.create("klm").fit(stats)) == f"klm() fitted on {CLASSES} classes"
    assert repr(detectors.create("msp")) == "msp()"
    assert repr(Outputs(VALUES, VALUES, [0, 1, 2])) == (
        "Outputs(logits=float64[3, 2], features=float64[3, 2], labels=int64[3])"
    )
    assert repr(p.head) == f"Head(kernel=float32[{FEATURES}, {CLASSES}], bias=float32[{CLASSES}])"
