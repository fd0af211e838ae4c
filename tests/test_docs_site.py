"""The site as it is built: without a warning, whole, and readable without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oodjax import detectors
from website import reference

ROOT = Path(__file__).parents[1]
FETCHED = r'<(?:(?:script|img|iframe|source|video|audio|embed)[^>]*\ssrc|link[^>]*\shref)=["\']?(?:https?:)?//[^"\'> ]*'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "WARNING -" not in run.stderr
    return out


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
        assert f'href="detectors/{name}.html"' in text
        page = (site / "detectors" / f"{name}.html").read_text(encoding="utf-8")
        assert ("<svg" in page.split('class="strip"')[1][:20]) if name in detectors.NAMES else True


def test_search_finds_detectors_and_reference(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for location in ("detectors/vim.html", "reference/monitor.html", "glossary.html", "tutorial.html"):
        assert f'"location":"{location}"' in index
