"""What the page says of one, of a few and of many models, read from its HTML."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import report_folders
from scipy import stats

from oodjax import metrics
from oodjax.report import tables, write
from oodjax.report.data import load
from oodjax.report.explain import detector_words, explained
from oodjax.report.glossary import DETECTORS, TERMS
from oodjax.report.heat import heat_tables, numbers, warmth
from oodjax.report.inline import fitting
from oodjax.report.leaderboard import Leaders
from oodjax.store import Store, key_of

DETECTED, SETS = ("msp", "knn", "gram", "vim"), {"letters": "near", "digits": "near", "china": "far"}
MANY = dict(list(report_folders.SMALL_STUDY.items())[:8])


class Page(HTMLParser):
    """Ids, links, and the text of elements by their id."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.terms, self.text, self.at = [], [], {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named["href"]] if "href" in named else []
        if named.get("id", "").startswith("term-"):
            self.at = named["id"]

    def handle_data(self, data):
        self.text += data
        if self.at:
            self.terms[self.at] = self.terms.get(self.at, "") + data

    def handle_endtag(self, tag):
        self.at = None if tag == "div" else self.at


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """One model whose scores are kept, and whose table is of these scores."""
    folder = report_folders.make(tmp_path_factory.mktemp("one"), {"mine": "own"}, DETECTED, SETS)
    rng, store, kept, scores = np.random.default_rng(3), Store(folder), {}, {}
    for place, name in enumerate(("id_test", *SETS)):
        columns = [[d, f"key of {d}"] for d in DETECTED]
        shift = np.array([2.0, 1.5, 1.5, 0.3]) if name == "id_test" else np.full(4, 0.4 * place)
        scores[name] = rng.normal(shift, 1, (300 if name == "id_test" else 120, 4)).astype(np.float32)
        store.put(
            f"scores/mine/{name}",
            {"scores": (key_of(columns=columns), scores[name])},
            {"columns": ("columns", columns)},
        )
        kept[name] = {"scores": key_of(columns=columns)}
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "kept": {"mine": kept}}))
    table = pd.read_csv(folder / "results.csv")
    correct = np.arange(300) > 20
    for name in SETS:
        for column, values in metrics.evaluate(scores["id_test"], scores[name], correct).items():
            table.loc[table["dataset"] == name, column] = values
    table.to_csv(folder / "results.csv", index=False)
    return folder, scores


def test_a_leaderboard_holds_the_tables_numbers_within_their_intervals(scored):
    folder, scores = scored
    leaders = Leaders(load(folder), "mine")
    assert leaders.auroc.index[0] == "msp" and list(leaders.auroc.columns) == list(SETS)
    by_auroc, at_threshold = leaders.boards()
    for i, (detector, cells) in enumerate(by_auroc.rows):
        column = DETECTED.index(detector)
        values = [100 * metrics.auroc(scores["id_test"][:, column], scores[s][:, column]) for s in SETS]
        for cell, value in zip(cells, [np.mean(values), *values], strict=True):
            low, high = map(float, cell.interval.split("–"))
            assert float(cell.key) == pytest.approx(value) and low < value < high < low + 17
        assert cells[0].best == (i == 0)
    width = [np.subtract(*map(float, cells[k].interval.split("–")[::-1])) for _, cells in by_auroc.rows for k in (0, 1)]
    assert all(mean < single for mean, single in zip(width[::2], width[1::2], strict=True))  # three sets say more
    for detector, (at, *cells) in at_threshold.rows:
        column = DETECTED.index(detector)
        assert np.mean(scores["id_test"][:, column] >= float(at.key)) == 0.95
        for cell, name in zip(cells, SETS, strict=True):
            accepted = 100 * np.mean(scores[name][:, column] >= float(at.key))
            low, high = map(float, cell.interval.split("–"))
            assert float(cell.key) == pytest.approx(accepted) and low <= accepted <= high


def test_detectors_that_the_images_do_not_tell_apart_are_named(scored):
    folder, _ = scored
    assert Leaders(load(folder), "mine").tied() == []  # 1.5 and 2 are apart with so many images
    study = load(folder)
    study.results["auroc"] = study.results["auroc"].where(study.results["detector"] != "msp", 1.0)
    rest = Leaders(study, "mine")
    rest.auroc = rest.auroc.drop("msp")
    assert set(rest.tied()) | {rest.auroc.index[0]} == {"knn", "gram"}


def test_the_page_of_one_model_asks_which_detector(scored, tmp_path):
    text = write(scored[0], tmp_path / "out").read_text("utf-8")
    page = Page(text)
    assert "<h1>Which detector is safe with this model?</h1>" in text
    assert "With mine, msp tells ID from OOD images best: mean AUROC" in page.text
    assert "95 % interval over images" in page.text.replace("\xa0", " ")
    titles = [part.split("</h3>")[0] for part in text.split("<h3>")[1:]]
    assert titles and not any("Accuracy" in title or "orrelation" in title for title in titles)
    assert "cannot be said" not in text
    assert "fig-roc-1" in page.ids and "leaders-1-auroc" in page.ids and "heat-auroc" not in page.ids


def test_without_kept_scores_a_leaderboard_has_no_intervals_and_says_so(tmp_path):
    folder = report_folders.make(tmp_path, {"mine": "own"}, DETECTED, SETS)
    board, _ = Leaders(load(folder), "mine").boards()
    assert "not kept" in board.note and {cell.interval for _, cells in board.rows for cell in cells} == {""}


@pytest.mark.parametrize(
    ("models", "question", "boards"),
    [
        (dict.fromkeys(("baseline", "mixup"), "augmentation"), "Which detector is safe with these models?", 2),
        (MANY, "Does accuracy predict", 0),
    ],
    ids=["few", "many"],
)
def test_several_models_have_a_page_of_their_own(models, question, boards, tmp_path):
    folder = report_folders.make(tmp_path, models, DETECTED, SETS)
    text = write(folder).read_text("utf-8")
    page = Page(text)
    assert question in text.split("<h1>")[1].split("</h1>")[0]
    assert sum(i.startswith("leaders-") and i.endswith("-auroc") for i in page.ids) == boards
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    figures = {i for i in page.ids if i.startswith("fig") and not i.startswith("figure")}
    assert figures and all(f"#{i}" in page.links for i in figures)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for term in ("ID", "OOD", "AUROC", "FPR95"):
        assert TERMS[term] in page.terms[f"term-{term.lower()}"] and f"#term-{term.lower()}" in page.links
    assert all(DETECTORS[d] in page.terms[f"term-{d}"] for d in DETECTED)


def test_a_detector_that_is_not_the_studys_is_explained_by_its_run():
    known = {"mine": "Distance from mine.\nMore.", "knn": "another text"}
    assert detector_words(["mine", "mine:k=3+p=2", "knn", "gone"], known) == {
        "mine": "Distance from mine.",
        "mine:k=3+p=2": "Distance from mine. With k=3, p=2.",
        "knn": DETECTORS["knn"],
    }


def test_a_term_is_a_link_where_it_first_stands():
    assert str(explained("AUROC < AUROC of an ID")) == (
        '<a class="term" href="#term-auroc">AUROC</a> &lt; AUROC of an <a class="term" href="#term-id">ID</a>'
    )
    named = str(explained("knn, not knns", ["knn"]))
    assert named == '<a class="term" href="#term-knn">knn</a>, not knns'
    assert str(explained("VALID, fig-ID, Spearman's ρ")).count("<a") == 1


def test_the_heat_table_is_the_mean_over_models(tmp_path):
    folder = report_folders.make(tmp_path, MANY, DETECTED, SETS)
    study, table = load(folder), pd.read_csv(folder / "results.csv")
    auroc, fpr = heat_tables(study)
    means = 100 * table.pivot_table(index="detector", columns="dataset", values="auroc")[list(SETS)]
    for row in auroc.rows:
        found = [float(tile.key) for tile in row.tiles]
        np.testing.assert_allclose(found, [means.loc[row.detector].mean(), *means.loc[row.detector]])
    assert [row.detector for row in auroc.rows] == list(means.mean(axis=1).sort_values(ascending=False).index)
    lowest = (100 * table.pivot_table(index="detector", columns="dataset", values="fpr95")).min()
    assert [float(next(r.tiles[i] for r in fpr.rows if r.tiles[i].best).key) for i in (1, 2, 3)] == pytest.approx(
        list(lowest[list(SETS)])
    )
    assert "fewer models" not in auroc.note
    study.results.loc[(study.results["model"] == "mixup") & (study.results["detector"] == "gram"), "auroc"] = np.nan
    assert "Some cells are of fewer models" in heat_tables(study)[0].note
    content = json.loads(numbers(study))
    at = content["models"].index("cutmix"), content["detectors"].index("gram"), content["sets"].index("china")
    one = table.query("model == 'cutmix' and detector == 'gram' and dataset == 'china'")["auroc"].item()
    assert content["auroc"][at[0]][at[1]][at[2]] == round(100 * one, 2)


@pytest.mark.parametrize(
    ("metric", "value", "colour"),
    [("auroc", 100, "--h: 100"), ("auroc", 75, "--h: 50"), ("auroc", 40, "--l: 20"), ("fpr95", 30, "--h: 70")],
)
def test_a_cell_is_coloured_by_how_good_it_is(metric, value, colour):
    assert warmth(metric, value) == colour


def test_a_name_cannot_end_the_script_that_holds_it(tmp_path):
    folder = report_folders.make(tmp_path, {"</script><b>": "own", "baseline": "baseline"}, ("msp",), SETS)
    assert "<" not in numbers(load(folder))
    assert json.loads(numbers(load(folder)))["models"][1] == "</script><b>"


def test_a_reason_is_given_once_with_all_that_it_keeps_away(tmp_path):
    folder = report_folders.make(tmp_path, MANY, ("msp", "knn"), SETS)
    text = write(folder).read_text("utf-8")
    assert text.count("which are not with these tables") == 2  # of figures, and of tables
    assert "Scores of" in text.split("which are not with these tables")[0].split("<h3>Not drawn</h3>")[1]


def test_the_smallest_figures_are_in_the_page():
    assert fitting({"a": 5, "b": 1, "c": 3}, budget=4) == {"b", "c"}
    assert fitting({"a": 5}, budget=5) == {"a"}


def test_recipes_with_seeds_have_a_table_with_intervals_and_one_row_each(tmp_path):
    models = {"baseline": "baseline", "mixup": "augmentation", "simclr": "ssl"}
    folder = report_folders.with_seeds(tmp_path, models, 4, DETECTED, SETS)
    study, table = load(folder), pd.read_csv(folder / "results.csv")
    views = {entry.key: tables.with_recipes(study, entry.make()) for entry in list(tables.entries(study))[:4]}
    frame = views["recipes"].frame.set_index("recipe")
    of_model = 100 * table.groupby(["recipe", "seed"])["auroc"].mean().unstack()
    np.testing.assert_allclose(frame["auroc"], of_model.mean(axis=1).reindex(list(models)))
    half = stats.t.ppf(0.975, 3) * of_model.std(axis=1, ddof=1) / 2
    np.testing.assert_allclose(frame["auroc_high"] - frame["auroc"], half.reindex(list(models)))
    gaps = of_model.loc["mixup"] - of_model.loc["baseline"]
    assert frame.at["mixup", "difference"] == pytest.approx(gaps.mean())
    found = frame.loc["mixup", ["difference_low", "difference_high"]].astype(float)
    np.testing.assert_allclose(found, stats.t.interval(0.95, 3, gaps.mean(), gaps.std(ddof=1) / 2))
    assert list(frame["seeds"]) == [4, 4, 4] and np.isnan(frame.at["baseline", "difference"])
    matrix = views["model-detector"]
    means = 100 * table.groupby(["recipe", "detector"])["auroc"].mean().unstack()
    np.testing.assert_allclose(matrix.frame.set_index("recipe"), means.loc[list(models), matrix.frame.columns[1:]])
    assert matrix.names[1] == {"recipe": "mixup", "category": "augmentation"}
    assert views["models"].names[1] == {"model": "baseline.seed1", "category": "baseline", "recipe": "baseline"}
