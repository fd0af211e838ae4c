import numpy as np
import pytest
import sklearn.decomposition

from oodjax import analysis


@pytest.mark.parametrize("shape", [(200, 16), (12, 40)])
def test_feature_space_equals_the_eigenvalues(shape):
    x = np.maximum(np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1), 0).astype(np.float32)
    found = analysis.feature_space(x)
    values = np.linalg.eigvalsh(np.cov(x.astype(float).T))
    norms = [np.sqrt(sum(float(v) ** 2 for v in row)) for row in x]
    assert found["total_variance"] == pytest.approx(values.sum())
    assert found["participation_ratio"] == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert found["sparsity"] == np.mean(x < 1e-3)
    assert found["mean_norm"] == pytest.approx(np.mean(norms))
    assert found["std_norm"] == pytest.approx(np.std(norms, ddof=1))


def test_feature_space_by_hand():
    crossing = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    assert analysis.feature_space(crossing) == pytest.approx(
        {"total_variance": 4 / 3, "participation_ratio": 2, "sparsity": 0.5, "mean_norm": 1, "std_norm": 0}
    )
    line = np.outer(np.arange(5), [3, 4])
    assert analysis.feature_space(line)["participation_ratio"] == pytest.approx(1)
    constant = analysis.feature_space(np.full((4, 3), 0.1))
    assert constant["total_variance"] == 0 and np.isnan(constant["participation_ratio"])


def test_a_large_mean_does_not_hide_the_spread():
    x = np.random.default_rng(1).normal(size=(50, 4))
    assert analysis.feature_space(x + 1e5)["participation_ratio"] == pytest.approx(
        analysis.feature_space(x)["participation_ratio"], rel=1e-8
    )


def test_activation_profile():
    profile = analysis.activation_profile([[1, 5, 0], [3, 7, 0]], [[1, 2, 3]])
    np.testing.assert_array_equal(profile.units, [1, 0, 2])
    np.testing.assert_array_equal(profile.id_mean, [6, 2, 0])
    np.testing.assert_array_equal(profile.ood_mean, [2, 1, 3])


def test_pca_embedding_equals_scikit_learn():
    rng = np.random.default_rng(2)
    inside, outside = rng.normal(size=(60, 5)) * [5, 1, 3, 1, 0.5] + 2, rng.normal(size=(20, 5))
    for dim in (1, 3):
        ours = analysis.pca_embedding(inside, outside, dim)
        pca = sklearn.decomposition.PCA(dim, svd_solver="full").fit(inside)
        signs = np.sign(pca.components_[np.arange(dim), np.abs(pca.components_).argmax(1)])
        np.testing.assert_allclose(ours.id, pca.transform(inside) * signs, atol=1e-9)
        np.testing.assert_allclose(ours.ood, pca.transform(outside) * signs, atol=1e-9)
        np.testing.assert_allclose(ours.explained, pca.explained_variance_ratio_)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: analysis.feature_space([[1.0, 2.0]]), r"features must be \(n, d\) with n >= 2 .* got shape \(1, 2\)"),
        (lambda: analysis.feature_space([1.0, 2.0]), r"got shape \(2,\)"),
        (lambda: analysis.feature_space([[1.0], [np.inf]]), "features has 1 values that are NaN"),
        (lambda: analysis.activation_profile(np.ones((2, 3)), np.ones((2, 4))), r"got \(2, 3\) and \(2, 4\)"),
        (lambda: analysis.pca_embedding(np.eye(3), np.eye(3), 4), "dim must be a whole number in 1 to 3, got 4"),
    ],
)
def test_other_features_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pca_embedding_of_few_or_equal_samples():
    still = analysis.pca_embedding(np.ones((4, 3)), np.arange(3.0)[None], 2)
    np.testing.assert_array_equal(still.id, np.zeros((4, 2)))
    assert np.isnan(still.explained).all()
    line = analysis.pca_embedding([[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]], [[5.0, 6.0, 0.0]], 1)
    np.testing.assert_allclose(np.abs(line.id[:, 0]), np.sqrt(2))
    np.testing.assert_allclose(line.explained, 1)
    with pytest.raises(ValueError, match="dim must be a whole number in 1 to 2, got 3"):
        analysis.pca_embedding(np.eye(3)[:2], np.eye(3), 3)
