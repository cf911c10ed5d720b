"""AUC over the epochs of a training: ``python -m benchmarks.epochs OUT COHORT --size N``.

ConOCC and the CAE are trained once a seed, both at λ = 1e-3, and scored by Eq. 6 and by correlation
on the way: what a training has after ten epochs is what one of ten epochs ends with. The folder
``OUT`` holds ``epochs.csv``, a line for each method, seed, epoch and score as soon as it is known,
``epochs.svg`` of all its lines, and checkpoints: started again, the command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.command import asked, cohort_of
from conocc.detectors import method_class
from conocc.detectors.reconstruction_scores import SCORES
from conocc.metrics.confidence_intervals import auc_interval
from conocc.visualization.drawing import blank, line_style, save_figure, styled

MILESTONES = (1, 3, 10, 30, 100, 300, 1000)
COLUMNS = ("cohort", "method", "seed", "epoch", "score", "AUC", "low", "high")
KEY = list(COLUMNS[:5])
FORMAT: Any = {"index": False, "float_format": "%.4f", "lineterminator": "\n"}
SAID = {"residual": "Eq. 6", "correlation": "correlation"}


def watched(method: str, look: Callable[[Any, int], None], **params: Any) -> Any:
    """Make a detector that has `look` see it before each epoch: trained for so many."""

    class Watched(method_class(method)):  # type: ignore[misc]  # known when it runs
        def __sklearn_is_fitted__(self) -> bool:
            return True  # it is scored on the way

        def _train(self, train: Any, stage: str, **more: Any) -> None:
            before = more.pop("before_epoch", lambda epoch: None)

            def both(epoch: int) -> None:
                look(self, epoch)
                before(epoch)

            super()._train(train, stage, before_epoch=both, **more)

    return Watched(**{"false_alarms": None, "lr": 1e-3, **params})


def follow(
    out: Path, cohort: Any, method: str, seed: int, milestones: Collection[int], **params: Any
) -> None:
    """Train once, and add the lines that `out` lacks."""
    table = out / "epochs.csv"
    lines = pd.read_csv(table)[KEY].itertuples(index=False) if table.exists() else ()
    wanted = product([cohort.name], [method], [seed], milestones, SCORES)
    missing = {*wanted} - {tuple(line) for line in lines}
    test, epochs = cohort.where(split="test"), max(milestones)
    patient = test.patient if test.patients_known else None

    def look(detector: Any, epoch: int) -> None:
        for key in product([cohort.name], [method], [seed], [epoch], SCORES):
            if key in missing:
                detector.scored_by = key[-1]
                score = detector.anomaly_score(test.images)
                found = auc_interval(test.minority, score, patient=patient)
                line = pd.DataFrame([[*key, *found]], columns=COLUMNS)
                line.to_csv(table, mode="a", header=not table.exists(), **FORMAT)

    if missing:
        detector = watched(method, look, epochs=epochs, random_state=seed, **params)
        checkpoint = out / f"{cohort.name}-{method}-{seed}.checkpoint"
        detector.fit(cohort.where(split="train").images, checkpoint=checkpoint)
        look(detector, epochs)
        checkpoint.unlink(missing_ok=True)


@styled
def figure(rows: pd.DataFrame) -> Figure:
    """Draw a panel a cohort, a line for each method and score: the mean over seeds."""
    names = list(dict.fromkeys(rows["cohort"]))
    drawn = blank(width=3.6 * len(names), height=3.8)
    for axes, name in zip(drawn.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        its = rows[rows["cohort"] == name].groupby(["method", "score", "epoch"])["AUC"]
        for i, ((method, score), line) in enumerate(its.mean().groupby(level=[0, 1])):
            label = f"{method_class(method).__name__}, {SAID[score]}"
            x, y = line.index.get_level_values("epoch"), line.to_numpy()
            axes.plot(x, y, marker=".", label=label, **line_style(i))
            axes.set(xscale="log", xlabel="epochs", ylabel="AUC", title=name)
            axes.set_xticks(x, labels=map(str, x))
        axes.minorticks_off()
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


def main() -> None:
    """Do what is missing, and draw all lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epochs", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--milestones", type=int, nargs="+", default=MILESTONES)
    given = asked(parser)
    given.out.mkdir(parents=True, exist_ok=True)
    cohort = cohort_of(given)
    for seed, method in product(range(given.seeds), ("conocc", "cae")):
        follow(given.out, cohort, method, seed, given.milestones)
    save_figure(figure(pd.read_csv(given.out / "epochs.csv")), given.out / "epochs.svg")


if __name__ == "__main__":
    main()
