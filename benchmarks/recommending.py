"""python -m benchmarks.recommending FOLDER: what a recommendation made without OOD images is worth on the digits study.

For every model of a finished study: detectors are ranked from its held-out digits and stand-ins alone, with default
options, and the ranking is compared with the study's own on its eight OOD sets, whose options were searched. Regret is
the mean AUROC of the study's best detector for that model less that of the recommended one, 0 at best.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd
from rich.console import Console
from scipy.stats import spearmanr

from oodjax import presets
from oodjax.console import Stages
from oodjax.devices import Devices
from oodjax.execute import Engine
from oodjax.recommendation import Recommendation, recommend, study_of
from oodjax.store import Store
from oodjax.study import Model, Study

ALTERNATIVES = ("msp", "ebo", "knn", "vim", "mds")  # what people take without asking


def of_model(study: Study, model: Model, folder: Path, stages: Stages) -> Recommendation:
    """The recommendation for a trained model of the study; `folder` is for what it leaves."""
    assert study.train is not None
    asked = study_of(
        model,
        study.train.source,
        study.id_test.source,
        {},
        model.load("float32"),
        detectors=study.detectors,
        seed=study.seed,
        batch_size=study.batch_size,
    )
    engine = Engine(asked, Store(folder, warn=lambda line: print(line, file=sys.stderr)), Devices.all(), stages)
    with engine.store.claim():
        engine.run()
    return recommend(engine)


def compare(found: Recommendation, results: pd.DataFrame) -> dict[str, float | str]:
    """A model's recommendation against its rows of the study's results."""
    real = 100 * results.groupby("detector")["auroc"].mean()
    ranked = found.table.set_index("detector")["auroc"].reindex(real.index)
    return {
        "recommended": found.best,
        "best": str(real.idxmax()),
        "regret": real.max() - real[found.best],
        "rank_correlation": spearmanr(ranked, real).statistic,
        **{f"regret of {name}": real.max() - real[name] for name in ALTERNATIVES if name in real},
    }


def run(folder: Path, models: list[str] | None = None) -> pd.DataFrame:
    """One row per model that `folder/results.csv` has."""
    study = presets.make("digits", presets.Options(folder=folder))
    results = pd.read_csv(folder / "results.csv")
    rows = []
    with Stages(Console(stderr=True)) as stages:
        for model in study.models:
            own = results[results["model"] == model.name]
            if len(own) and (models is None or model.name in models):
                with tempfile.TemporaryDirectory() as work:
                    rows.append({"model": model.name, **compare(of_model(study, model, Path(work), stages), own)})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommending", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a finished `python -m oodjax.run digits`")
    parser.add_argument("--models", nargs="+", default=None)
    options = parser.parse_args()
    table = run(options.folder, options.models)
    print(table.to_string(index=False, float_format="%.2f"))
    print(table.drop(columns="model").describe(include="number").loc[["mean", "std", "min", "max"]].T.to_string())


if __name__ == "__main__":
    main()
