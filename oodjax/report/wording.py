"""Numbers in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from oodjax.analysis import ClusterCorrelation, Correlation
from oodjax.analysis.verdict import p_value

MINUS = "−"


def number(value: float, digits: int = 1) -> str:
    if not np.isfinite(value):
        return "undefined"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def rho(found: Correlation) -> str:
    return "ρ undefined" if found.reason else f"ρ = {number(found.rho, 2)}"


def rho_p(found: Correlation) -> str:
    return f"ρ undefined: {found.reason}" if found.reason else f"{rho(found)}, {p_value(found.p)}, n = {found.n:,}"


def relation(found: ClusterCorrelation) -> str:
    """A correlation between models with its interval and p, as far as it has them."""
    if not np.isfinite(found.rho):
        return f"undefined: {found.reason}"
    text = number(found.rho, 2)
    if np.isfinite(found.low):
        text += f" ({number(found.low, 2)} to {number(found.high, 2)})"
    return f"{text}, {p_value(found.p)}" if np.isfinite(found.p) else f"{text} ({found.reason})"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def dataset_count(rows: pd.DataFrame) -> str:
    return count(rows["dataset"].nunique(), "OOD set")
