"""Builds the documentation: python -m website [FOLDER]. It opens from the disk, FOLDER/index.html."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from website import detectors, glossary, reference

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = ".made-by-oodjax-website"
_OUTSIDE = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<rest>(?!\.\.)[^)#\s]+)\)")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m website", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site", help="of the pages (default: site)")
    folder = parser.parse_args(arguments).folder
    if folder.exists() and not (folder / MARK).exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder} holds something else: name a new or empty folder, or one that was built before")
    with tempfile.TemporaryDirectory() as work:
        lay_out(Path(work))
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        built = subprocess.run(command, cwd=work, env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)})
        if built.returncode:
            return built.returncode
        (Path(work) / "site" / MARK).touch()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(work) / "site", folder)
    return 0


def lay_out(work: Path) -> None:
    """Writes what the builder reads: the written pages, those made from the code, and the settings."""
    shutil.copytree(DOCS, work / "docs")
    made = detectors.pages() | reference.pages() | {"glossary.md": glossary.page()}
    for path, text in made.items():
        page = work / "docs" / path
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    for written in DOCS.rglob("*.md"):
        text = _brought(written, work / "docs")
        (work / "docs" / written.relative_to(DOCS)).write_text(text, encoding="utf-8")
    settings = yaml.safe_load((ROOT / "website" / "site.yml").read_text(encoding="utf-8"))
    sections = {"detectors/": detectors.navigation(), "reference/": reference.navigation()}
    settings["nav"] = _filled(settings["nav"], sections)
    (work / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def _brought(page: Path, docs: Path) -> str:
    """A page's text, its links out of `docs` led to copies of those files inside."""

    def inside(link: re.Match[str]) -> str:
        target = (page.parent / link["up"] / link["rest"]).resolve()
        if not target.is_file() or DOCS in target.parents:
            return link[0]
        copy = docs / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, copy)
        up = "../" * (len(page.relative_to(DOCS).parts) - 1)
        return f"]({up}{target.relative_to(ROOT).as_posix()})"

    return _OUTSIDE.sub(inside, page.read_text(encoding="utf-8"))


def _filled(nav: Any, sections: dict[str, Any]) -> Any:
    """The navigation with the made pages in place of the folder that names them."""
    if isinstance(nav, list):
        return [_filled(entry, sections) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, sections) for title, entry in nav.items()}
    return sections.get(nav, nav)


if __name__ == "__main__":
    sys.exit(main())
