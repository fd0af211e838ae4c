"""MkDocs' hook: adds the pages that are made from the code, and the files of the repository that pages link to."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from website import detectors, glossary, reference  # noqa: E402 - MkDocs loads a hook without its package

_OUTSIDE = re.compile(r"\]\((?:\.\./)+((?!\.\.)[^)#\s]+)\)")
_PAGES: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the made pages into the navigation, where `mkdocs.yml` names their folder."""
    _PAGES.clear()
    _PAGES.update(detectors.pages() | reference.pages() | {"glossary.md": glossary.page()})
    sections = {"detectors/": detectors.navigation(), "reference/": reference.navigation()}
    config.nav = _filled(config.nav, sections)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in _PAGES.items():
        files.append(File.generated(config, path, content=text))
    for path in sorted(_linked(Path(config.docs_dir))):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Links out of `docs` lead to the copies in the site."""
    here = Path(config.docs_dir) / page.file.src_uri
    up = "../" * page.file.src_uri.count("/")

    def inside(match: re.Match[str]) -> str:
        return match[0] if _within(here, match, config) else f"]({up}{match[1]})"

    return _OUTSIDE.sub(inside, markdown)


def _linked(docs: Path) -> set[str]:
    """Files of the repository, outside of `docs`, that a page links to."""
    found = set()
    for path in docs.rglob("*.md"):
        for match in _OUTSIDE.finditer(path.read_text(encoding="utf-8")):
            target = (path.parent / match[0][2:-1]).resolve()
            if target.is_file() and docs.resolve() not in target.parents:
                found.add(target.relative_to(ROOT).as_posix())
    return found


def _within(here: Path, match: re.Match[str], config: MkDocsConfig) -> bool:
    target = (here.parent / match[0][2:-1]).resolve()
    return not target.is_file() or Path(config.docs_dir).resolve() in target.parents


def _filled(nav: Any, sections: dict[str, Any]) -> Any:
    if isinstance(nav, list):
        return [_filled(entry, sections) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, sections) for title, entry in nav.items()}
    return sections.get(nav, nav)
