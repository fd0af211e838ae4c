"""Files beside the code that repeat what the code or the checks say."""

import re
from pathlib import Path

import oodjax

ROOT = Path(__file__).parents[1]


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", text, re.MULTILINE) == [oodjax.__version__]


def test_the_hooks_before_a_commit_are_the_checks_of_every_build() -> None:
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    checks = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert hooks == [line for line in checks if re.match(r"ruff|mypy", line)]
