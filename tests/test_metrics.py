import pathlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from oodjax import metrics

GOLDEN = pathlib.Path(__file__).parent / "data" / "metrics_golden.npz"
SCORE_METRICS = [metrics.auroc, metrics.fpr95, metrics.fpr95_id, metrics.aupr_in, metrics.aupr_out]


def pair(kind, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "continuous":
        return rng.normal(size=301), rng.normal(size=177) - 0.7
    if kind == "ties":
        return rng.integers(0, 6, 301) / 7, rng.integers(-1, 4, 177) / 7
    if kind == "constant":
        return np.ones(9), np.ones(4)
    if kind == "separable":
        return np.arange(10.0) + 100, np.arange(7.0)
    if kind == "reversed":
        return np.arange(7.0), np.arange(10.0) + 100
    return np.array([0.3]), np.array([0.1])


KINDS = ["continuous", "ties", "constant", "separable", "reversed", "single"]


def by_sklearn(id_scores, ood_scores):
    is_id = np.r_[np.ones(len(id_scores), int), np.zeros(len(ood_scores), int)]
    scores = np.r_[id_scores, ood_scores]

    def false_positive_rate(positive, values):
        fpr, tpr, _ = sklearn.metrics.roc_curve(positive, values, drop_intermediate=False)
        return fpr[np.argmax(tpr >= 0.95)]

    def area(positive, values):
        precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, values)
        return sklearn.metrics.auc(recall, precision)

    return {
        "auroc": sklearn.metrics.roc_auc_score(is_id, scores),
        "fpr95": false_positive_rate(1 - is_id, -scores),
        "fpr95_id": false_positive_rate(is_id, scores),
        "aupr_in": area(is_id, scores),
        "aupr_out": area(1 - is_id, -scores),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_score_metrics_equal_scikit_learn(kind, seed):
    id_scores, ood_scores = pair(kind, seed)
    for name, expected in by_sklearn(id_scores, ood_scores).items():
        assert getattr(metrics, name)(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12), name


def test_score_metrics_equal_the_reference_implementation():
    golden = np.load(GOLDEN)
    is_id = golden["y_test"] >= 0
    names = [name for name in golden.files if name.startswith("metric/")]
    assert len(names) == 37
    scores = np.stack([golden["score/" + name.removeprefix("metric/")] for name in names], 1)
    expected = np.stack([golden[name] for name in names])
    inside, outside = scores[is_id], scores[~is_id]
    for column, metric in enumerate([metrics.fpr95, metrics.auroc, metrics.aupr_in, metrics.aupr_out]):
        np.testing.assert_allclose(metric(inside, outside), expected[:, column], rtol=0, atol=1e-12)


def test_by_hand_with_ties():
    id_scores, ood_scores = [1, 2, 2, 3], [0, 2]
    # pairs won: 4 against 0; against 2 one win, two ties: 4 + 1 + 1 of 8
    assert metrics.auroc(id_scores, ood_scores) == 6 / 8
    # flagging all OOD takes the threshold 2, which flags 1, 2, 2
    assert metrics.fpr95(id_scores, ood_scores) == 3 / 4
    # accepting all ID takes the threshold 1, which accepts the OOD sample 2
    assert metrics.fpr95_id(id_scores, ood_scores) == 1 / 2


@pytest.mark.parametrize("kind", KINDS)
def test_auroc_of_exchanged_sets_is_the_complement(kind):
    id_scores, ood_scores = pair(kind)
    assert metrics.auroc(id_scores, ood_scores) == pytest.approx(1 - metrics.auroc(ood_scores, id_scores), abs=1e-15)


@pytest.mark.parametrize("metric", SCORE_METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_ranks_count(metric, kind):
    id_scores, ood_scores = pair(kind)
    rng = np.random.default_rng(1)
    expected = metric(id_scores, ood_scores)
    assert metric(rng.permutation(id_scores), rng.permutation(ood_scores)) == expected
    assert metric(3 * np.exp(id_scores / 50) - 7, 3 * np.exp(ood_scores / 50) - 7) == expected


@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_columns_are_independent_detectors(metric):
    rng = np.random.default_rng(2)
    inside, outside = rng.integers(0, 50, (40, 3)), rng.integers(-20, 30, (30, 3))
    values = metric(inside, outside)
    assert values.shape == (3,) and values.dtype == np.float64
    assert list(values) == [metric(inside[:, j], outside[:, j]) for j in range(3)]


def test_evaluate_equals_the_single_metrics():
    rng = np.random.default_rng(3)
    inside, outside, correct = rng.integers(0, 50, (60, 2)), rng.integers(-20, 30, (45, 2)), rng.random(60) < 0.7
    values = metrics.evaluate(inside, outside, correct)
    assert tuple(values) == metrics.COLUMNS
    for metric in SCORE_METRICS:
        np.testing.assert_array_equal(values[metric.__name__], metric(inside, outside))
    np.testing.assert_array_equal(values["auroc_correct_vs_ood"], metrics.auroc(inside[correct], outside))
    np.testing.assert_array_equal(values["auroc_incorrect_vs_ood"], metrics.auroc(inside[~correct], outside))
    np.testing.assert_array_equal(
        values["auroc_correct_vs_incorrect"], metrics.auroc(inside[correct], inside[~correct])
    )
    split = metrics.split_auroc(inside[:, 0], correct, outside[:, 0])
    assert split == {name: values[name][0] for name in values if name.startswith("auroc_")}


def test_an_empty_side_of_the_split_is_nan():
    perfect = metrics.evaluate([1.0, 2.0], [0.0], [True, True])
    assert perfect["auroc_correct_vs_ood"] == perfect["auroc"] == 1
    assert np.isnan(perfect["auroc_incorrect_vs_ood"]) and np.isnan(perfect["auroc_correct_vs_incorrect"])
    assert np.isnan(metrics.split_auroc([1.0, 2.0], [0, 0], [0.0])["auroc_correct_vs_ood"])


@pytest.mark.parametrize("metric", SCORE_METRICS)
@pytest.mark.parametrize(
    "id_scores, ood_scores, message",
    [
        ([0.0, np.nan], [1.0], "id_scores has 1 of 2 values that are NaN"),
        ([0.0], [1.0, -np.inf, np.inf], "ood_scores has 2 of 3 values"),
        ([], [1.0], r"id_scores is empty, shape \(0,\)"),
        (np.zeros((3, 2)), np.zeros((0, 2)), r"ood_scores is empty, shape \(0, 2\)"),
        (1.0, [1.0], r"id_scores must be \(n,\) or \(n, m\), got shape \(\)"),
        (np.zeros((3, 2)), np.zeros((4, 3)), r"same columns, got \(3, 2\) and \(4, 3\)"),
        (np.zeros((3, 1)), np.zeros(4), r"same columns, got \(3, 1\) and \(4,\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(metric, id_scores, ood_scores, message):
    with pytest.raises(ValueError, match=message):
        metric(id_scores, ood_scores)


@pytest.mark.parametrize("correct, message", [([True], "got shape"), ([0, 2], "true or false")])
def test_correct_is_checked(correct, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate([0.0, 1.0], [0.5], correct)


def test_accuracy():
    assert metrics.accuracy([[0, 1], [2, 1], [5, 7], [1, 0]], [1, 0, 0, 1]) == 0.5


def test_ece_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.85, 0.15], [0.6, 0.4], [0.55, 0.45]])
    labels = np.array([0, 1, 0, 0])
    # two bins of width 0.2: (0.8, 1] holds 1 of 2 right at 0.875, (0.4, 0.6] 2 of 2 at 0.575
    by_hand = pytest.approx((abs(1 - 1.75) + abs(2 - 1.15)) / 4)
    assert metrics.ece(probabilities=probabilities, labels=labels, bins=5) == by_hand
    assert metrics.ece(probabilities, labels, bins=5) == by_hand
    assert metrics.ece(probabilities=probabilities, labels=labels, bins=np.int64(1)) == pytest.approx(abs(3 - 2.9) / 4)
    assert metrics.ece(logits=np.log(probabilities), labels=labels, bins=5) == by_hand
    assert metrics.ece(np.log(probabilities), labels, 5) == by_hand
    assert metrics.ece(np.eye(3), [0, 1, 1]) == pytest.approx(1 / 3)


def test_ece_takes_what_it_is_told_and_refuses_to_guess():
    """Probabilities in few digits do not sum to 1, and logits may lie in 0 to 1: no value tells one from the other."""
    rng = np.random.default_rng(7)
    exact = rng.dirichlet(np.full(100, 0.05), 400)
    labels = np.array([rng.choice(100, p=p) for p in exact])  # calibrated, but for chance
    want = metrics.ece(probabilities=exact, labels=labels)
    assert want < 0.1
    for rounded in (exact.round(3), exact.astype(ml_dtypes.bfloat16), exact.astype(np.float16)):
        # a confidence moves by at most half the last digit, and may move to the next bin with its gap
        assert metrics.ece(probabilities=rounded, labels=labels) == pytest.approx(want, abs=0.01)
    for call in (lambda x: metrics.ece(x, labels), lambda x: metrics.ece(x.astype(np.float32), labels)):
        with pytest.raises(ValueError, match=r"rows sum to 0.\d+ to 1.\d+: say what they are, ece\(logits=..., labels"):
            call(exact.round(3))
    logits = rng.uniform(0, 1, (50, 4))
    with pytest.raises(ValueError, match="say what they are"):
        metrics.ece(logits, np.zeros(50, int))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics.ece(logits=logits, labels=np.zeros(50, int)) == pytest.approx(metrics.ece(p, np.zeros(50, int)))
    for wrong, message in (
        (np.log(exact + 1e-9), r"probabilities must lie in 0 to 1 and sum to 1 .* pass logits=..."),
        (2 * exact, "probabilities must lie in 0 to 1"),
        (exact / 2, "sums off by up to 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.ece(probabilities=wrong, labels=labels[: len(wrong)])


def test_ece_wants_one_kind_of_values_and_labels():
    for arguments in (
        {"labels": [0]},
        {"logits": [[0.0, 1.0]]},
        {"logits": [[0.0, 1.0]], "probabilities": [[0.0, 1.0]], "labels": [0]},
        {"values": [[0.0, 1.0]], "logits": [[0.0, 1.0]], "labels": [0]},
    ):
        with pytest.raises(TypeError, match="ece takes one of logits= and probabilities=, and labels; got"):
            metrics.ece(**arguments)


def test_ece_equals_a_loop_over_bins():
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(size=(500, 5)) * 2, rng.integers(0, 5, 500)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.ece(logits, labels) == pytest.approx(expected, abs=1e-12)
    assert metrics.ece(p, labels) == pytest.approx(expected, abs=1e-12)
    assert metrics.ece(logits=logits + 1000, labels=labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        ([[0.0, 1.0]], [2], r"labels must lie in 0..1, got 2..2; they seem to count from 1"),
        ([[0.0, 1.0]], [0.5], "labels must be whole numbers, got 0.5"),
        ([[0.0, np.nan]], [0], "1 values that are NaN"),
        ([[0.0, 1.0]], [0, 1], r"got \(1, 2\) and \(2,\)"),
        (np.zeros((0, 2)), [], r"got \(0, 2\)"),
    ],
)
def test_logits_and_labels_are_checked(logits, labels, message):
    for metric in (metrics.accuracy, metrics.ece):
        with pytest.raises(ValueError, match=message):
            metric(logits, labels)
    for bins in (0, 1.5, "15", True, 10**30):
        with pytest.raises(ValueError, match=f"bins must be at least 1 and whole, and at most [0-9]+, got {bins!r}"):
            metrics.ece([[0.5, 0.5]], [0], bins=bins)


# ---------------------------------------------------------------------------------------------------------------------
# What is handed over


@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_scikit_learns_order_is_recognised(metric):
    rng = np.random.default_rng(0)
    y_true, y_score = rng.integers(0, 2, 50), rng.normal(size=50)
    for labels in (y_true, y_true.tolist(), y_true.astype(float), y_true.astype(bool), pd.Series(y_true)):
        with pytest.raises(ValueError, match=r"take \(id_scores, ood_scores\).* scores\[y_true == 1\], scores\[y_true"):
            metric(labels, y_score)
    inside, outside = y_score[y_true == 1], y_score[y_true == 0]
    assert metric(inside, outside) == pytest.approx(by_sklearn(inside, outside)[metric.__name__], abs=1e-12)


def test_scores_of_zero_and_one_are_scores():
    """A vote of yes or no, saturated scores, sets of other lengths: nothing of scikit-learn's order."""
    assert metrics.auroc([0, 1, 1], [0, 0, 1]) == (1 * 0 + 2 * 2 + 0.5 * (2 + 2)) / 9
    assert metrics.auroc([1.0, 1.0, 1.0], [0.2, 0.5, 1.0]) == (3 * 2 + 0.5 * 3) / 9
    assert metrics.auroc([0, 1, 1], [0.5, 0.5]) == 4 / 6


@pytest.mark.parametrize("metric", SCORE_METRICS)
def test_scores_of_any_kind_of_array_are_the_same(metric):
    inside, outside = pair("ties")
    want = metric(inside, outside)
    for convert in (list, pd.Series, jnp.asarray, lambda x: x.astype(">f8"), np.ma.masked_array):
        assert metric(convert(inside), convert(outside)) == want  # float32 keeps the order and the ties of sevenths


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.array([1j, 2.0]), "id_scores must be an array of real numbers, got ndarray of complex128"),
        (["a", "b"], "id_scores must be an array of real numbers, got a list"),
        ({"a": 1.0}, "id_scores must be an array of real numbers, got a dict"),
        (None, "id_scores must be an array of real numbers, got None"),
        ([[1.0], [1.0, 2.0]], "id_scores cannot be made an array, got a list"),
        (np.ma.masked_array([1.0, 2.0], mask=[0, 1]), "id_scores is a masked array with 1 masked entries"),
        (np.zeros((3, 0)), r"id_scores is empty, shape \(3, 0\)"),
    ],
)
def test_scores_that_are_no_numbers_are_named(scores, message):
    with pytest.raises((ValueError, TypeError), match=message):
        metrics.auroc(scores, [1.0, 2.0])
    with pytest.raises((ValueError, TypeError), match=message):
        metrics.evaluate(scores, [1.0, 2.0], [True, False])
