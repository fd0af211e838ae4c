"""The glossary's page, from the words that the report explains too."""

from __future__ import annotations

from oodjax.report.glossary import DETECTORS, TERMS


def page() -> str:
    terms = "\n\n".join(f"{name}\n:   {text}" for name, text in TERMS.items())
    names = "\n".join(f"- [`{name}`](detectors/{name}.md): {text}" for name, text in DETECTORS.items())
    return f"# Glossary\n\n{terms}\n\n## Detectors\n\n{names}\n"
