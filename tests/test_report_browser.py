"""The page in a real browser: nothing missing, nothing logged, tables sort when their headings are pressed."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
import report_folders

from oodjax.report import write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=20000"
).split()

# Runs beside the page's own script and only presses what a reader would press.
PROBE = """
<script>
addEventListener("load", async () => {
  const found = {errors: [], missing: [], tables: [], wide: null};
  for (const image of document.images) {
    try { await image.decode(); } catch (e) { found.errors.push(String(e)); }
    if (!image.complete || image.naturalWidth === 0) found.missing.push(image.src);
  }
  for (const part of document.querySelectorAll("details")) part.open = true;
  for (const table of document.querySelectorAll("table")) {
    const columns = [];
    const headers = [...table.tHead.rows[0].cells];
    for (const header of headers) {
      const read = () => [...table.tBodies[0].rows].map(row => row.cells[headers.indexOf(header)].dataset.key);
      const states = [];
      for (let i = 0; i < 2; i++) {
        header.firstElementChild.focus();
        document.activeElement.click();
        states.push({sort: header.getAttribute("aria-sort"), keys: read(),
                     marked: table.querySelectorAll("[aria-sort]").length});
      }
      columns.push({numeric: header.classList.contains("n"), states});
    }
    found.tables.push(columns);
  }
  found.drawings = document.querySelectorAll("figure .drawing > svg, figure .drawing > img").length;
  found.scroll = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
</script>
"""


def open_page(page, width, profile):
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    text = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert text, done.stderr[-2000:]
    return json.loads(text[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_page_in_a_browser(tmp_path, width):
    assert CHROMIUM is not None, "install Chromium, as .ci/run does: apt-get install chromium"
    folder = report_folders.make(tmp_path / "study", units=True)
    page = write(folder)
    found, console = open_page(page, width, tmp_path / "profile")
    assert not console
    assert not found["errors"] and not found["missing"]
    assert found["drawings"] == len(list((page.parent / "figures").glob("*.svg"))) >= 24
    assert found["scroll"] <= 0
    assert len(found["tables"]) >= 7
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
def test_the_table_of_the_whole_study(tmp_path):
    """56 models, 21 detectors, 8 sets: every figure that needs no units, and the paper's degrees of freedom."""
    folder = report_folders.make(tmp_path, report_folders.PAPER_STUDY)
    assert len(pd.read_csv(folder / "results.csv")) == 9408
    page = write(folder)
    drawn = {path.stem[:5] for path in (page.parent / "figures").glob("*.svg")}
    assert drawn >= {f"fig{number:02d}" for number in range(1, 18)}
    found = pd.read_csv(page.parent / "tables" / "anova.csv")["df"].tolist()
    assert found == [55, 20, 3, 1100, 165, 60, 3300, 4704]
