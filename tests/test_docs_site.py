"""The site as it is built: without a warning, whole, and readable without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_report_browser import CHROMIUM, FLAGS

from oodjax import detectors
from website import __main__ as builder
from website import reference

ROOT = Path(__file__).parents[1]
FETCHED = r'<(?:(?:script|img|iframe|source|video|audio|embed)[^>]*\ssrc|link[^>]*\shref)=["\']?(?:https?:)?//[^"\'> ]*'

pytestmark = pytest.mark.slow


# Types into the search and lists the links that it finds.
PROBE = """
<script>
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
addEventListener("load", async () => {
  document.querySelector(".md-search__button").click();
  await wait(1000);
  const search = [...document.querySelectorAll("*")].find((element) => element.shadowRoot).shadowRoot;
  const input = search.querySelector("input");
  input.focus();
  input.value = "mahalanobis";
  input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  await wait(3000);
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = [...search.querySelectorAll("a")].map((link) => link.getAttribute("href")).join(" ");
  document.body.append(found);
});
</script>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "site"
    run = subprocess.run([sys.executable, "-m", "website", str(out)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "No issues found" in run.stdout + run.stderr
    return out


def test_every_written_page_is_in_the_navigation():
    settings = (ROOT / "website" / "site.yml").read_text(encoding="utf-8")
    written = {path.relative_to(builder.DOCS).as_posix() for path in builder.DOCS.rglob("*.md")}
    assert written == {*re.findall(r": (\S+\.md)$", settings, re.MULTILINE)} - {"glossary.md"}


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, monkeypatch, capfd):
    shutil.copytree(builder.DOCS, tmp_path / "docs")
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[here](nowhere.md), [there](tutorial.md#nothing)\n")
    monkeypatch.setattr(builder, "DOCS", tmp_path / "docs")
    assert builder.main([str(tmp_path / "site")]) != 0
    said = "".join(capfd.readouterr())
    assert "page does not exist" in said and "anchor does not exist" in said
    assert not (tmp_path / "site").exists()


def test_a_folder_with_anything_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(SystemExit) as ended:
            builder.main([str(folder)])
        assert ended.value.code == 2
        assert "holds something else: name a new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("text", "fetches"),
    [
        ('<script async src="https://a.b/c.js">', True),
        ('<link rel="stylesheet" href="//fonts.a.b/css">', True),
        ("<img alt=x src='http://a.b/c.png'>", True),
        ('<script src="../assets/c.js"></script><a href="https://a.b">', False),
    ],
)
def test_what_counts_as_fetching(text, fetches):
    assert bool(re.search(FETCHED, text)) == fetches


def test_no_page_fetches_anything_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(FETCHED, text) == [], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()[\s\"']*(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_public_name_is_explained_on_its_page(site):
    for page, names in reference.names().items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            (anchor,) = re.findall(rf'id="{re.escape(name)}"', text)[:1]
            after = text.split(anchor, 1)[1][:20_000]
            assert re.search(r"<(?:p|li|code)[ >]", after), f"{name} has a heading and nothing below it"


def test_each_detector_has_its_page_in_the_navigation(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    for name in detectors.names():
        assert re.search(rf'href="(\./)?detectors/{name}\.html"', text), name
        page = (site / "detectors" / f"{name}.html").read_text(encoding="utf-8")
        assert ("<svg" in page.split('class="strip"')[1][:20]) if name in detectors.NAMES else True


def test_files_that_pages_link_to_come_along(site):
    record = ROOT / "benchmarks" / "results" / "cpu.json"
    assert 'href="benchmarks/results/cpu.json"' in (site / "imagenet.html").read_text(encoding="utf-8")
    assert (site / "benchmarks" / "results" / "cpu.json").read_bytes() == record.read_bytes()


def test_search_works_from_the_disk(site, tmp_path):
    text = (site / "index.html").read_text(encoding="utf-8")
    page = site / "probed.html"
    page.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert {"mds", "rmds"} <= {*re.findall(r"detectors/(\w+)\.html", found)}
