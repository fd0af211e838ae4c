"""An estimate and how far it can be trusted."""

from typing import NamedTuple


class Interval(NamedTuple):
    """An estimate and the interval that holds the truth in `level` of such studies.

    `unit` says what was resampled, such as "17 models" or "5 seeds of each recipe". `low` and `high` are NaN where
    there is too little to resample.
    """

    estimate: float
    low: float
    high: float
    level: float
    unit: str

    @property
    def excludes_zero(self) -> bool:
        return bool(self.low > 0 or self.high < 0)
