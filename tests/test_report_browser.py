"""The page in a real browser: it names, marks, filters, searches and sorts what it shows, and asks nobody for more."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_folders

from oodjax.report import write
from oodjax.report.glossary import DETECTORS, TERMS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --enable-logging=stderr --virtual-time-budget=20000 --allow-file-access-from-files"
).split()
PROBE = (Path(__file__).parent / "report_probe.js").read_text("utf-8")
# No window is narrower than 500 pixels, but a frame is.
FRAME = """<!doctype html><iframe src="index.html{hash}" style="width: {width}px; height: 900px"></iframe>
<pre id="probe"></pre>
<script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  for (const part of page.querySelectorAll("details")) part.open = true;
  const cut = [...page.querySelectorAll(".drawing > *, h1, h2, h3, p, figcaption, form, .scroll")]
    .filter(e => e.getClientRects().length && (e.getBoundingClientRect().right > root.clientWidth + 1
      || e.getBoundingClientRect().left < -1));
  const dim = [...page.querySelectorAll(".mark[data-model]")]
    .filter(m => Number(page.defaultView.getComputedStyle(m).opacity) < 0.15).map(m => m.dataset.model);
  document.getElementById("probe").textContent = JSON.stringify({{
    wide: root.scrollWidth - root.clientWidth, cut: cut.map(e => e.outerHTML.slice(0, 90)), dim: [...new Set(dim)],
    width: root.clientWidth,
  }});
}});
</script>
"""
DETECTED = ("msp", "knn", "gram", "vim")
SETS = {"letters": "near", "digits": "near", "china": "far"}
MODELS = {
    **{m: report_folders.SMALL_STUDY[m] for m in ("baseline", "adversarial_l2_0.5", "adversarial_l2_3", "mixup")},
    **{m: report_folders.SMALL_STUDY[m] for m in ("cutmix", "simclr", "supcon")},
}


def browse(page, profile):
    """What the probe wrote into a page, and what the console said."""
    assert CHROMIUM is not None, "install Chromium, as .ci/run does: apt-get install chromium"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    text = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert text and text[1], done.stderr[-2000:]
    return json.loads(html.unescape(text[1])), console


def framed(page, width, profile, hash=""):
    frame = page.with_name("framed.html")
    frame.write_text(FRAME.format(width=width, hash=hash), encoding="utf-8")
    return browse(frame, profile)[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = report_folders.make(tmp_path_factory.mktemp("study"), MODELS, DETECTED, SETS, units=True)
    return write(folder)


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What a reader sees who does all that the probe does."""
    probed = page.with_name("probed.html")
    text = page.read_text("utf-8").replace("</body>", f"<script>{PROBE}</script></body>")
    probed.write_text(text, encoding="utf-8")
    return browse(probed, tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def table(page):
    return pd.read_csv(page.parents[1] / "results.csv")


def heat(rows):
    """Detector -> what its row of the heat table shows, the mean over sets first."""
    means = 100 * rows.pivot_table(index="detector", columns="dataset", values="auroc")
    means = means[[s for s in SETS if s in means]]
    return {d: [f"{v:.1f}" for v in (means.loc[d].mean(), *means.loc[d])] for d in means.index}


def same(found, expected):
    """Equal but for the rounding of the page's numbers to hundredths before their means."""
    assert found.keys() == expected.keys()
    for detector, values in expected.items():
        np.testing.assert_allclose(np.array(found[detector], float), np.array(values, float), atol=0.11)


@pytest.mark.slow
def test_nothing_goes_wrong_and_nothing_is_fetched(seen, page):
    found, console = seen
    assert not console and not found["errors"] and not found["remote"]
    assert found["drawings"] == len(list((page.parent / "figures").glob("*.svg"))) >= 20


@pytest.mark.slow
def test_what_a_point_a_word_and_a_detector_stand_for(seen):
    found, _ = seen
    assert found["hover"]["tip"] == found["hover"]["label"] != "" and found["hover"]["hidden"] is False
    assert found["left"] is True and found["term"] == TERMS["OOD"]
    name, says = found["detector"]
    assert says == DETECTORS[name]
    assert found["arrows"] == [True, True] and re.match("#(model|detector)=", found["entered"])
    assert found["escaped"] == ["", True, True]


@pytest.mark.slow
def test_a_model_is_marked_everywhere_until_it_is_let_go(seen, table):
    found, _ = seen
    marked = found["marked"]
    assert marked["hash"] == "#model=mixup" and marked["state"] == "marked: mixup"
    assert marked["bright"] == marked["rows"] == ["mixup"] and marked["dim"] == sorted(set(MODELS) - {"mixup"})
    same(marked["heat"], heat(table[table["model"] == "mixup"]))
    assert found["unmarked"] == found["cleared"] == ["", True]
    assert found["picked"]["hash"] == "#model=simclr" and found["picked"]["bright"] == ["simclr"]
    assert set(found["picked"]["pressed"]) == {"simclr"}
    assert found["enter"] == "#model=mixup" and found["after"][0] == ""
    assert found["after"][1] == found["before"]


@pytest.mark.slow
def test_filters_leave_what_they_name(seen, table):
    found, _ = seen
    augmented = sorted(m for m, c in MODELS.items() if c == "augmentation")
    assert found["category"]["marks"] == found["category"]["rows"] == augmented
    same(found["category"]["heat"], heat(table[table["model"].isin(augmented)]))
    assert found["dataset"]["columns"] == ["china"] and found["dataset"]["marks"] in ([], ["china"])
    same(found["dataset"]["heat"], heat(table[table["dataset"] == "china"]))
    assert found["metric"] == ["fpr95"]
    same(found["before"], heat(table))


@pytest.mark.slow
def test_the_search_finds_models_and_detectors(seen):
    found, _ = seen
    assert found["search"] == {"rows": ["cutmix", "mixup"], "bright": ["cutmix", "mixup"], "detectors": len(DETECTED)}
    assert found["searched"] == ["vim"]
    assert found["nothing"] == ["nothing is called “nobody”", len(DETECTED)]


@pytest.mark.slow
def test_headings_and_names_stay_while_a_table_scrolls(seen):
    found, _ = seen
    assert found["sticky"][:2] == [60, 40] and found["sticky"][2:] == [0, 0, 0]


@pytest.mark.slow
def test_every_heading_sorts_its_table(seen):
    found, _ = seen
    assert len(found["tables"]) >= 9
    for columns in found["tables"]:
        for column in columns:
            assert {state["sort"] for state in column["states"]} == {"ascending", "descending"}
            for state in column["states"]:
                assert state["marked"] == 1
                keys = [k for k in state["keys"] if k != ""]
                assert state["keys"] == keys + [""] * (len(state["keys"]) - len(keys))
                if column["numeric"]:
                    values = [float(k) for k in keys]
                    assert values == sorted(values, reverse=state["sort"] == "descending")


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1200])
def test_a_screen_shows_the_whole_width_and_the_address_marks_a_model(page, width, tmp_path):
    found = framed(page, width, tmp_path, "#fig01-accuracy&model=mixup")
    assert found["wide"] <= 0 and found["cut"] == [] and width - 20 <= found["width"] <= width
    assert set(found["dim"]) == set(MODELS) - {"mixup"}


@pytest.mark.slow
def test_the_table_of_the_whole_study(tmp_path):
    """56 models, 21 detectors, 8 sets: every figure that needs no units, in a page of a few MB that fits a phone."""
    folder = report_folders.make(tmp_path, report_folders.PAPER_STUDY)
    assert len(pd.read_csv(folder / "results.csv")) == 9408
    page = write(folder)
    drawn = {path.stem[:5] for path in (page.parent / "figures").glob("*.svg")}
    assert drawn >= {f"fig{number:02d}" for number in range(1, 18)}
    found = pd.read_csv(page.parent / "tables" / "anova.csv")["df"].tolist()
    assert found == [55, 20, 3, 1100, 165, 60, 3300, 4704]
    assert page.stat().st_size < 5_000_000
    seen = framed(page, 400, tmp_path / "profile", "#model=mixup")
    assert seen["wide"] <= 0 and seen["cut"] == []
