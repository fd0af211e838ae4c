"""The largest complete block against trying everything; Skillings-Mack against its paper and Friedman's test."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from oodjax import analysis
from oodjax.analysis.incomplete import skillings_mack_of

# Skillings and Mack (1981), Table 1: the times that four ways of assembling a product took nine people.
N = np.nan
ASSEMBLY = np.array(
    [
        [3.2, 4.1, 3.8, 4.2],
        [3.1, 3.9, 3.4, 4.0],
        [4.3, 3.5, 4.6, 4.8],
        [3.5, 3.6, 3.9, 4.0],
        [3.6, 4.2, 3.7, 3.9],
        [4.5, 4.7, 3.7, N],
        [N, 4.2, 3.4, N],
        [4.3, 4.6, 4.4, 4.9],
        [3.5, N, 3.7, 3.9],
    ]
)


def table_of(values):
    """One row per value that is there; axes are numbered."""
    rows = [(f"m{i}", f"d{j}", f"s{k}", v) for (i, j, k), v in np.ndenumerate(values) if not np.isnan(v)]
    return pd.DataFrame(rows, columns=["model", "detector", "dataset", "auroc"])


def test_the_published_example():
    found = skillings_mack_of(ASSEMBLY)
    assert found.statistic == pytest.approx(15.493, abs=5e-4) and found.df == 3
    assert found.p == pytest.approx(scipy.stats.chi2.sf(15.493, 3), rel=1e-3)
    assert (found.blocks, found.treatments) == (9, 4)


@pytest.mark.parametrize("digits", [1, 8], ids=["ties", "no ties"])
def test_a_complete_table_is_friedman_s_test(digits):
    values = np.random.default_rng(0).random((7, 5)).round(digits)
    expected = scipy.stats.friedmanchisquare(*values.T)
    found = skillings_mack_of(values)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-10)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9) and found.df == 4
    table = table_of(values[:, :, None])
    assert analysis.skillings_mack(table).statistic == pytest.approx(analysis.friedman(table).statistic)


def test_a_balanced_incomplete_design_is_durbin_s_test():
    """Durbin's statistic of blocks of k out of t treatments, each r times: 12 (t-1) / (r t (k^2-1)) sum of squares."""
    rng, blocks = np.random.default_rng(1), list(itertools.combinations(range(4), 3))
    values = np.full((len(blocks), 4), np.nan)
    for i, members in enumerate(blocks):
        values[i, list(members)] = rng.random(3)
    t, k, r = 4, 3, 3
    sums = np.nansum(scipy.stats.rankdata(values, axis=1, nan_policy="omit"), axis=0)
    durbin = 12 * (t - 1) / (r * t * (k * k - 1)) * np.sum((sums - r * (k + 1) / 2) ** 2)
    assert skillings_mack_of(values).statistic == pytest.approx(durbin, rel=1e-10)


def test_p_is_uniform_where_treatments_do_not_differ():
    rng = np.random.default_rng(2)
    values = rng.random((400, 30, 4))
    values[rng.random(values.shape) < 0.2] = np.nan
    p = [skillings_mack_of(v).p for v in values]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_what_cannot_be_tested_says_why():
    assert skillings_mack_of(np.array([[1.0, 2.0], [1.0, np.nan]]), "model").reason == "one model"
    assert skillings_mack_of(np.ones((3, 3))).reason == "all values tie"
    with pytest.raises(ValueError, match="takes blocks with two or more treatments"):
        skillings_mack_of(np.array([[1.0, np.nan], [np.nan, 2.0]]))


def size_by_trying_everything(seen):
    best = 0
    sizes = [range(1, 2**n) for n in seen.shape]
    for bits in itertools.product(*sizes):
        chosen = [(b >> np.arange(n)) & 1 == 1 for b, n in zip(bits, seen.shape, strict=True)]
        if seen[np.ix_(*chosen)].all():
            best = max(best, int(np.prod([c.sum() for c in chosen])))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_block_of_a_small_table(seed):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((4, 5, 3)) < 0.25, np.nan, 1.0)
    block, dropped = analysis.largest_block(table_of(values))
    sizes = [block[a].nunique() for a in ("model", "detector", "dataset")]
    assert len(block) == np.prod(sizes) == size_by_trying_everything(~np.isnan(values))
    for axis, names in dropped.items():
        assert set(names) == set(table_of(values)[axis]) - set(block[axis])


def test_what_lacks_cells_is_named():
    values = np.ones((13, 12, 8))
    values[3, 7] = values[5, :, 2] = np.nan
    block, dropped = analysis.largest_block(table_of(values))
    # 11 models, or 12 and one detector less; without the set it would be 12 x 12 x 7
    assert len(block) == 11 * 12 * 8
    assert dropped in (
        {"model": ["m3", "m5"], "detector": [], "dataset": []},
        {"model": ["m5"], "detector": ["d7"], "dataset": []},
    )
    whole, nothing = analysis.largest_block(table_of(np.ones((3, 2, 2))))
    assert len(whole) == 12 and nothing == {"model": [], "detector": [], "dataset": []}


def test_a_large_table_without_structure():
    """Beyond what can be tried: a complete block, and not smaller than the best line of one axis alone."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((17, 21, 8)) < 0.07, np.nan, 1.0)
    block, _ = analysis.largest_block(table_of(values))
    sizes = [block[a].nunique() for a in ("model", "detector", "dataset")]
    assert len(block) == np.prod(sizes)
    assert len(block) >= max((~np.isnan(values)).sum(axis=(0, 1)).max() // 4, 60)


def test_two_axes_and_tables_that_do_not_fit():
    table = table_of(np.where(np.arange(6).reshape(2, 3, 1) == 5, np.nan, 1.0))
    block, dropped = analysis.largest_block(table, axes=["model", "detector"])
    assert len(block) == 4 and dropped == {"model": [], "detector": ["d2"]}
    with pytest.raises(ValueError, match="more than one row for model='m0', detector='d0', dataset='s0'"):
        analysis.largest_block(pd.concat([table, table]))
    with pytest.raises(ValueError, match="auroc has no finite value"):
        analysis.largest_block(table.assign(auroc=np.nan))
