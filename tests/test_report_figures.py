"""Figures as they are written: what each mark says, where it stands, and that nothing covers a text."""

import io
import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import report_folders
from PIL import Image

from oodjax.analysis import correlation_interval, differences, holm, mean_interval, mean_ranks
from oodjax.report import figures
from oodjax.report.data import load
from oodjax.report.figures_legend import Line as Entry
from oodjax.report.figures_legend import flow
from oodjax.report.intervals import auroc_interval
from oodjax.report.panels import span, tick_labels
from oodjax.report.scene import Dot, Line, Mark, Text, png, svg, text_width
from oodjax.report.style import CATEGORIES, ROLES, SPARE, WIDTH, cast, css, paper_colours

SETS = {"letters": "near", "digits": "near", "china": "far", "flower": "far"}
MODELS = {
    "baseline": "baseline",
    "texture": "augmentation",
    "mixup": "augmentation",
    "simclr": "ssl",
    "ema": "improved",
}
DETECTORS = ("msp", "knn", "gram", "vim")
# Machado, Oliveira & Fernandes 2009, severity 1, of linear RGB.
BLIND = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def replicated(folder, seeds=2):
    """A study with seeds of each recipe."""
    models = {f"{m}.seed{s}": c for m, c in MODELS.items() for s in range(seeds)}
    report_folders.make(folder, models, DETECTORS, SETS, seed=4)
    for name in ("results.csv", "models.csv"):
        table = pd.read_csv(folder / name)
        parts = table["model"].str.extract(r"(?P<recipe>.*)\.seed(?P<seed>\d+)")
        table.assign(recipe=parts["recipe"], seed=parts["seed"]).to_csv(folder / name, index=False)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load(report_folders.make(tmp_path_factory.mktemp("plain"), MODELS, DETECTORS, SETS, units=True, seed=3))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return load(replicated(tmp_path_factory.mktemp("seeds")))


def drawn(study):
    """Key -> drawing of whatever can be drawn."""
    found = {}
    for entry in figures.entries(study):
        try:
            found[entry.key] = entry.draw(study)
        except ValueError as error:
            assert "run.json" in str(error), entry.key
    return found


@pytest.fixture(scope="module")
def drawings(study):
    return drawn(study)


def marks_of(drawing):
    """The attributes of every mark, as read from the file's markup."""
    tree = ET.fromstring(svg(drawing.scene, paper_colours()))
    found = [e for e in tree.iter() if "mark" in e.get("class", "").split()]
    return [{k.removeprefix("data-"): v for k, v in e.attrib.items() if k.startswith("data-")} for e in found]


def numbers(label):
    return [float(text.replace("−", "-")) for text in re.findall(r"[−\d.]+(?=,|$)", label.partition(": ")[2])]


def test_every_model_and_detector_is_one_mark_with_the_tables_value(study, drawings):
    table = study.results.groupby(["model", "detector"])["auroc"].mean()
    for key in ("fig08-detectors", "fig03-accuracy-detector"):
        found = {}
        for mark in marks_of(drawings[key]):
            if "model" in mark:
                assert (mark["model"], mark["detector"]) not in found
                assert mark["category"] == MODELS[mark["model"]] and mark["recipe"] == mark["model"]
                found[mark["model"], mark["detector"]] = float(re.findall(r"AUROC ([\d.]+)", mark["label"])[0])
        assert len(found) == len(table)
        for pair, value in found.items():
            assert value == pytest.approx(table[pair], abs=0.0501)


def test_marks_stand_where_their_values_are(study, drawings):
    means = study.results.groupby("model")["auroc"].mean()
    dots = {d.tag.model: d for d in drawings["fig01-accuracy"].scene.items if isinstance(d, Dot) and d.tag}
    assert set(dots) == set(MODELS)
    for of, x_or_y, sign in ((study.facts["accuracy"], "x", 1), (means, "y", -1)):
        places = np.array([getattr(dots[m], x_or_y) for m in MODELS])
        assert np.corrcoef(places, of[list(MODELS)])[0, 1] == pytest.approx(sign, abs=1e-9)


def test_seeds_share_the_mark_of_their_recipe_and_stand_behind_its_mean(seeds):
    found = marks_of(drawn(seeds)["fig01-accuracy"])
    models = [m for m in found if "model" in m]
    recipes = [m for m in found if "model" not in m and "recipe" in m]
    assert sorted(m["model"] for m in models) == sorted(seeds.models)
    assert sorted(m["recipe"] for m in recipes) == sorted(MODELS)
    table = seeds.results.assign(recipe=seeds.results["model"].str.split(".").str[0]).groupby("recipe")["auroc"].mean()
    for mark in recipes:
        assert numbers(mark["label"])[1] == pytest.approx(table[mark["recipe"]], abs=0.0501)
    assert len(set(cast(seeds).mark.values())) == len(MODELS)
    shown = {m["recipe"] for m in marks_of(drawn(seeds)["fig03-accuracy-detector"])}
    assert shown == set(MODELS)


def test_svg_has_no_ids_so_that_many_stand_in_one_page(drawings):
    for drawing in drawings.values():
        text = svg(drawing.scene, paper_colours(), "a <title> & more")
        assert not re.search(r"\bid=|url\(|href", text)
        assert ET.fromstring(text).get("aria-label") == "a <title> & more"


def test_colours_of_inlined_figures_follow_the_page(drawings):
    rules = css()
    used = set()
    for drawing in drawings.values():
        text = svg(drawing.scene, paper_colours())
        used |= set(re.findall(r"\b((?:fill|line)-[a-z]+(?:-\d+)?)\b(?=[ \"])", text)) - {"line-cap"}
        outside = re.sub(r"<style>.*?</style>", "", text)
        assert not re.search(r"#[0-9a-f]{6}|rgb\(", outside)
    assert {"fill-ink", "line-grid", "fill-hue-2"} <= used
    for name in used:
        kind, _, role = name.partition("-")
        assert f"svg .{name}{{{'fill' if kind == 'fill' else 'stroke'}:var(--figure-{role})}}" in rules
    light, dark = rules.split("@media")[:2]
    for role, colours in ROLES.items():
        assert f"--figure-{role}:{colours[0]}" in light and f"--figure-{role}:{colours[1]}" in dark


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB, white point D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ratio = to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("page", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("sight", BLIND)
def test_categories_are_apart_for_every_eye(page, sight):
    roles = [*CATEGORIES.values(), *SPARE]
    seen = {role: lab(BLIND[sight] @ linear(ROLES[role][page])) for role in roles}
    near = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(roles, 2)}
    assert min(near.values()) >= 20, min(near, key=near.get)
    sides = [lab(BLIND[sight] @ linear(ROLES[role][page])) for role in ("id", "ood")]
    assert np.linalg.norm(sides[0] - sides[1]) >= 20
    lightness = [
        [0.2126729, 0.7151522, 0.0721750] @ linear(ROLES[role][page]) for role in ("paper", *roles, "soft", "id", "ood")
    ]
    for value in lightness[1:]:
        assert (max(value, lightness[0]) + 0.05) / (min(value, lightness[0]) + 0.05) >= 3  # WCAG 2.2, 1.4.11


def test_shapes_are_unique_within_a_category_of_the_paper(tmp_path):
    study = load(report_folders.make(tmp_path, report_folders.PAPER_STUDY, ("msp",), {"china": "far"}))
    found = cast(study).mark
    assert len(found) == 56 and len(set(found.values())) == 56
    for category in study.categories:
        outlines = {(m.shape, m.fill) for recipe, m in found.items() if cast(study).category[recipe] == category}
        assert len(outlines) == sum(c == category for c in report_folders.PAPER_STUDY.values())


def test_one_outlier_stands_in_the_margin_and_is_named(tmp_path):
    folder = report_folders.make(tmp_path, report_folders.SMALL_STUDY, DETECTORS, SETS)
    facts = pd.read_csv(folder / "models.csv")
    facts["accuracy"] = np.linspace(0.978, 0.994, len(facts))
    facts.loc[facts["model"] == "random_filters", "accuracy"] = 0.81
    facts.to_csv(folder / "models.csv", index=False)
    study = load(folder)
    drawing = next(e for e in figures.entries(study) if e.key == "fig01-accuracy").draw(study)
    assert "random_filters (81.0)" in drawing.caption
    dots = {d.tag.model: d.x for d in drawing.scene.items if isinstance(d, Dot) and d.tag and d.tag.model}
    rest = [x for model, x in dots.items() if model != "random_filters"]
    assert max(rest) - min(rest) > 0.75 * (WIDTH - 70)  # nearly all of the axis
    assert dots["random_filters"] < min(rest)
    (label,) = [t for t in drawing.scene.items if isinstance(t, Text) and t.text == "81.0"]
    assert label.x == pytest.approx(dots["random_filters"])
    by_accuracy = {e.key: e.draw(study) for e in figures.entries(study) if "-accuracy-" in e.key}
    assert len(by_accuracy) == 4 and not (problems := _met(by_accuracy)), problems


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([81, 98, 98.5, 99, 99.4], 98, 99.4),
        ([90, 92, 94, 96, 98], 90, 98),
        ([1, 50], 1, 50),
        ([1, 2, 3, 4, 5, 50], 1, 5),
        ([np.nan, 3, 3, 3], 3, 3),
    ],
)
def test_span_leaves_out_what_would_take_half_of_it(values, low, high):
    trimmed, whole = span(values, trim=True, pad=0.0), span(values, pad=0.0)
    assert (trimmed.low, trimmed.high) == ((low, high) if low < high else (low - 0.5, high + 0.5))
    assert trimmed.below == tuple(v for v in values if v < low) and trimmed.above == tuple(
        v for v in values if v > high
    )
    assert not whole.below and not whole.above and whole.low <= np.nanmin(values) and whole.high >= np.nanmax(values)


def test_tick_labels_tell_each_tick_with_as_few_digits():
    assert tick_labels([0, 25, 50]) == ["0", "25", "50"]
    assert tick_labels([-0.5, 0.0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert tick_labels([1000.0, 1250.0]) == ["1,000", "1,250"]
    assert tick_labels([0.25, 0.5]) == ["0.25", "0.50"]


def test_ranks_and_their_bars_stay_within_the_ranks_that_exist(study, drawings):
    scene = drawings["fig07-ranks"].scene
    ticks = {t.text: t.x for t in scene.items if isinstance(t, Text) and t.text.isdigit()}
    step = (ticks["4"] - ticks["1"]) / 3
    first, last = ticks["1"], ticks["1"] + step * (len(DETECTORS) - 1)
    ranks = mean_ranks(study.measured("auroc")).set_index("detector")["mean_rank"]
    for dot in (d for d in scene.items if isinstance(d, Dot)):
        assert dot.x == pytest.approx(first + step * (ranks[dot.tag.detector] - 1))
    bars = [i.points for i in scene.items if isinstance(i, Line) and i.role == "id"]
    assert len(bars) == len(DETECTORS)
    assert all(first - 1e-6 <= x <= last + 1e-6 for bar in bars for x in bar[:, 0])
    rows = [d.y for d in scene.items if isinstance(d, Dot)]
    groups = [i.points for i in scene.items if isinstance(i, Line) and i.role == "ood"]
    assert groups and all(min(rows) - 10 < y < max(rows) + 10 for group in groups for y in group[:, 1])


@pytest.mark.parametrize("key", ["fig05-splits", "fig11-splits-detector"])
def test_axes_are_equal_where_equality_is_the_point(drawings, key):
    diagonals = [i.points for i in drawings[key].scene.items if isinstance(i, Line) and i.dashed]
    assert diagonals
    for (x0, y0), (x1, y1) in diagonals:
        assert x1 - x0 == pytest.approx(y0 - y1)


def test_figures_come_in_reading_order(study, drawings):
    entries = list(figures.entries(study))
    assert [e.key for e in entries][:3] == ["fig08-detectors", "legend", "fig-recipes"]
    order = [figures.SECTIONS.index(e.section) for e in entries]
    assert order == sorted(order)
    keys = [e.key for e in entries]
    assert keys.index("fig01-accuracy") < keys.index("fig02-accuracy-ood") < keys.index("fig03-accuracy-detector")
    assert len(set(keys)) == len(keys)
    assert not any("architecture" in key for key in keys)


def test_one_model_is_not_told_by_accuracy(tmp_path):
    study = load(report_folders.make(tmp_path, {"net": "baseline"}, DETECTORS, SETS, units=True))
    found = drawn(study)
    assert not any("accuracy" in e.title.lower() or "model" in e.title.lower() for e in figures.entries(study))
    assert {"fig08-detectors", "fig-roc-1", "fig-scores-1", "fig19-max-logit"} <= set(found) and "legend" not in found
    points = [m for m in marks_of(found["fig08-detectors"]) if "dataset" in m]
    assert {(m["detector"], m["dataset"]) for m in points} == set(itertools.product(DETECTORS, SETS))
    table = study.results.set_index(["detector", "dataset"])["auroc"]
    for mark in points:
        assert numbers(mark["label"])[0] == pytest.approx(table[mark["detector"], mark["dataset"]], abs=0.0501)


def test_few_models_are_told_what_is_lacking(tmp_path):
    models = {"baseline": "baseline", "mixup": "augmentation"}
    study = load(report_folders.make(tmp_path, models, DETECTORS, SETS))
    reasons = {}
    for entry in figures.entries(study):
        try:
            entry.draw(study)
        except ValueError as error:
            reasons[entry.key] = str(error)
    assert "4 or more models, and this study has 2: add more" in reasons["fig01-accuracy"]
    assert "fig08-detectors" not in reasons


def test_legend_columns_hold_every_entry_and_no_heading_ends_one():
    entries = [Entry(f"h{i}", None) if i % 5 == 0 else Entry(f"model {i}", Mark("ink")) for i in range(33)]
    columns = flow(entries, 440)
    assert [e for column in columns for e in column] == entries and len(columns) > 1
    assert all(column[-1].mark is not None for column in columns)


def test_texts_do_not_overlap_or_leave_the_figure(drawings, seeds):
    for found in (drawings, drawn(seeds)):
        assert all(sum(isinstance(t, Text) for t in d.scene.items) > 3 for d in found.values())
        assert not (problems := _met(found)), problems[:10]


def _met(drawings):
    """Texts that leave their figure or run into another."""
    problems = []
    for key, drawing in drawings.items():
        boxes = [(t.text, _box(t)) for t in drawing.scene.items if isinstance(t, Text)]
        width, height = drawing.scene.width, drawing.scene.height
        problems += [(key, t) for t, (x0, y0, x1, y1) in boxes if x0 < 0 or y0 < 0 or x1 > width or y1 > height]
        problems += [
            (key, a, b)
            for (a, p), (b, q) in itertools.combinations(boxes, 2)
            if min(p[2], q[2]) - max(p[0], q[0]) > 1 and min(p[3], q[3]) - max(p[1], q[1]) > 2
        ]
    return problems


def _box(text):
    """Left, top, right and bottom of a text: ascenders are 0.76 of its size, descenders 0.24."""
    width = text_width(text.text, text.size, text.bold)
    shift = {"start": 0, "middle": width / 2, "end": width}[text.anchor]
    if text.angle:
        return text.x - 0.76 * text.size, text.y - width + shift, text.x + 0.24 * text.size, text.y + shift
    return text.x - shift, text.y - 0.76 * text.size, text.x - shift + width, text.y + 0.24 * text.size


def test_pictures_show_what_the_drawings_do(drawings):
    """The PNG, twice as large, has each mark's colour at its place."""
    drawing, colours = drawings["fig01-accuracy"], paper_colours()
    picture = np.asarray(Image.open(io.BytesIO(png(drawing.scene, colours))))
    assert picture.shape == (round(2 * drawing.scene.height), 2 * WIDTH, 3)
    for dot in (d for d in drawing.scene.items if isinstance(d, Dot) and d.mark.fill == "full"):
        expected = [int(colours[dot.mark.colour][i : i + 2], 16) for i in (1, 3, 5)]
        assert picture[round(2 * dot.y), round(2 * dot.x)] == pytest.approx(expected, abs=2)


def test_recipes_stand_at_their_difference_from_the_baseline_with_its_interval(seeds):
    drawing = drawn(seeds)["fig-recipes"]
    found = differences(seeds.measured("auroc"), seeds.facts, "baseline").set_index("recipe")
    marks = {m["recipe"]: numbers(m["label"].replace(" points", ","))[0] for m in marks_of(drawing) if "model" not in m}
    assert set(marks) == set(MODELS) - {"baseline"}
    for recipe, value in marks.items():
        assert value == pytest.approx(found.at[recipe, "difference"], abs=0.0501)
    dots = {d.tag.recipe: d for d in drawing.scene.items if isinstance(d, Dot) and not d.tag.model}
    scale = np.polyfit([found.at[r, "difference"] for r in dots], [d.x for d in dots.values()], 1)
    bars = {round(i.points[0, 1]): i.points[:, 0] for i in drawing.scene.items if isinstance(i, Line) and i.width == 2}
    for recipe, dot in dots.items():
        expected = np.polyval(scale, found.loc[recipe, ["low", "high"]].astype(float))
        np.testing.assert_allclose(bars[round(dot.y)], expected, atol=1e-6)
    models = {m["model"] for m in marks_of(drawing) if "model" in m}
    assert models == {m for m in seeds.models if not m.startswith("baseline")}


def test_one_seed_of_a_recipe_has_no_interval_and_says_what_would_give_one(drawings):
    assert "--seeds" in drawings["fig-recipes"].caption
    assert not [i for i in drawings["fig-recipes"].scene.items if isinstance(i, Line) and i.width == 2]


def test_detectors_have_the_interval_of_their_mean_over_models(study, drawings):
    table = mean_interval(study.measured("auroc"), by="detector").set_index("detector")
    found = {m["detector"]: m["label"] for m in marks_of(drawings["fig08-detectors"]) if "model" not in m}
    assert set(found) == set(DETECTORS)
    for detector, label in found.items():
        values = [float(v) for v in re.findall(r"\d+\.\d", label)]
        assert values == pytest.approx(table.loc[detector, ["mean", "low", "high"]].astype(float).tolist(), abs=0.0501)
    assert f"resampling {table['unit'].iloc[0]}" in drawings["fig08-detectors"].caption


def test_correlations_are_those_between_models(study, drawings):
    table = study.measured("auroc")
    whole = correlation_interval(table, "accuracy", "auroc")
    said = f"{whole.rho:.2f} ({whole.low:.2f} to {whole.high:.2f})".replace("-", "−")
    assert said in drawings["fig01-accuracy"].caption and said in drawings["fig14-correlations"].caption
    rhos = [correlation_interval(table[table["detector"] == d], "accuracy", "auroc") for d in DETECTORS]
    sure = holm([c.p for c in rhos]) < 0.05
    titles = {
        t.text: t.role
        for t in drawings["fig03-accuracy-detector"].scene.items
        if isinstance(t, Text) and t.text.startswith("ρ ")
    }
    for found, is_sure in zip(rhos, sure, strict=True):
        assert titles[f"ρ {found.rho:.2f}".replace("-", "−")] == ("ink" if is_sure else "soft")


def test_a_correlation_of_all_models_in_the_same_order_is_sure(tmp_path):
    """Eight models whose AUROC rises with their accuracy: p by permutation stays below 0.05 after Holm's correction."""
    models = {f"m{i}": "baseline" if i == 0 else "ssl" for i in range(8)}
    folder = report_folders.make(tmp_path, models, DETECTORS, SETS)
    facts, results = pd.read_csv(folder / "models.csv"), pd.read_csv(folder / "results.csv")
    place = results["model"].str[1:].astype(int)
    facts.assign(accuracy=0.8 + 0.02 * facts.index).to_csv(folder / "models.csv", index=False)
    results.assign(auroc=0.5 + 0.05 * place).to_csv(folder / "results.csv", index=False)
    drawing = next(e for e in figures.entries(load(folder)) if e.key == "fig03-accuracy-detector").draw(load(folder))
    titles = [t for t in drawing.scene.items if isinstance(t, Text) and t.text.startswith("ρ ")]
    assert {(t.text, t.role) for t in titles} == {("ρ 1.00", "ink")}


def test_one_models_intervals_are_over_images_where_scores_are_kept(tmp_path):
    study = load(report_folders.make(tmp_path, {"net": "baseline"}, DETECTORS, SETS, units=True))
    drawing = drawn(study)["fig08-detectors"]
    labels = {m["detector"]: m["label"] for m in marks_of(drawing) if "dataset" not in m}
    for detector, label in labels.items():
        low, high = auroc_interval(
            study.scores("net", study.id_test, detector), [study.scores("net", s, detector) for s in study.datasets]
        )
        assert label.endswith(f"({100 * low:.1f} to {100 * high:.1f})")
    assert "resampling images" in drawing.caption


@pytest.fixture(scope="module")
def paper_sized(tmp_path_factory):
    """The study of the paper: 56 models, 21 detectors, 8 sets."""
    folder = report_folders.make(tmp_path_factory.mktemp("paper"), report_folders.PAPER_STUDY)
    keys = {"fig08-detectors", "legend", "fig-recipes", "fig01-accuracy", "fig03-accuracy-detector", "fig07-ranks"}
    study = load(folder)
    return study, {entry.key: entry.draw(study) for entry in figures.entries(study) if entry.key in keys}


def test_the_papers_study_stays_legible(paper_sized):
    """On a phone of 400 pixels, of which figures have 368, text is 8 pixels or more; no two texts meet."""
    study, found = paper_sized
    assert not (problems := _met(found)), problems[:10]
    for drawing in found.values():
        assert drawing.width <= WIDTH
        assert min(t.size for t in drawing.scene.items if isinstance(t, Text)) * 368 / drawing.width >= 8
    places = [(d.x, d.y) for d in found["legend"].scene.items if isinstance(d, Dot)]
    assert len(set(places)) == 56
    assert len({m["model"] for m in marks_of(found["fig-recipes"])}) == 55


def test_the_papers_study_as_a_picture(paper_sized):
    """Every category's colour is seen in the picture of each figure about as often as it is drawn."""
    study, found = paper_sized
    for key in ("fig08-detectors", "legend", "fig01-accuracy"):
        picture = np.asarray(Image.open(io.BytesIO(png(found[key].scene, paper_colours()))), np.int64)
        for role in {m.colour for m in cast(study).mark.values()} - {"ink"}:
            colour = [int(paper_colours()[role][i : i + 2], 16) for i in (1, 3, 5)]
            seen = (np.abs(picture - colour).max(axis=-1) <= 60).sum()
            dots = [d for d in found[key].scene.items if isinstance(d, Dot) and d.mark.colour == role]
            full = sum(d.size**2 for d in dots if d.mark.fill == "full")
            assert seen > 0.5 * full, (key, role)  # of 4 pixels to a CSS pixel; some marks cover others


def test_one_recipe_of_several_seeds_is_not_compared(tmp_path):
    folder = report_folders.make(tmp_path, {f"net.seed{s}": "baseline" for s in range(3)}, DETECTORS, SETS)
    for name in ("results.csv", "models.csv"):
        table = pd.read_csv(folder / name)
        table.assign(recipe="net", seed=table["model"].str[-1]).to_csv(folder / name, index=False)
    study = load(folder)
    keys = [entry.key for entry in figures.entries(study)]
    assert "fig01-accuracy" not in keys and "fig-recipes" not in keys
    found = marks_of(drawn(study)["fig08-detectors"])
    assert {(m["model"], m["detector"]) for m in found if "model" in m} == set(
        itertools.product(study.models, DETECTORS)
    )


def test_missing_cells_leave_no_mark_and_no_figure_out(study, tmp_path):
    folder = report_folders.make(tmp_path, MODELS, DETECTORS, SETS, seed=3)
    table = pd.read_csv(folder / "results.csv")
    lost = (table["model"] == "ema") & (table["detector"] == "gram")
    table[~lost].to_csv(folder / "results.csv", index=False)
    found = drawn(load(folder))
    pairs = {(m["model"], m["detector"]) for m in marks_of(found["fig08-detectors"]) if "model" in m}
    assert pairs == set(itertools.product(MODELS, DETECTORS)) - {("ema", "gram")}
    assert {"fig07-ranks", "fig06-variance", "fig11-splits-detector"} <= set(found)
    assert "Skillings and Mack's test" in found["fig07-ranks"].caption
    for drawing in found.values():
        assert "nan" not in svg(drawing.scene, paper_colours())
