"""The drawings of the guide, made anew with each build, of phantoms: no image of a patient."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta
from sklearn.metrics import precision_recall_curve, roc_curve

from conocc import GaborMahalanobis
from conocc.data.phantoms import draw_phantom
from conocc.metrics.ranking import METRICS
from conocc.visualization.drawing import MAJORITY, MINORITY, save_figure, styled


class Scores:
    """Scores of a fit to drawn films: calibration, majority and minority of a test."""

    def __init__(self) -> None:
        drawn = draw_phantom("phantom-chestx", size=48, train=300, test_majority=150, seed=1)
        learned, new = drawn.images[:200], drawn.images[drawn.split == "test"]
        detector = GaborMahalanobis(random_state=0, false_alarms=None).fit(learned)
        self.calibration = detector.anomaly_score(drawn.images[200:300])
        self.new = detector.anomaly_score(new)
        self.minority = drawn.minority[drawn.split == "test"]


def _histograms(axes: Axes, of: Scores) -> None:
    edges = np.histogram_bin_edges(of.new, 40)
    for is_minority, colour, name in (
        (False, MAJORITY, "majority"),
        (True, MINORITY, "minority"),
    ):
        its = of.new[of.minority == is_minority]
        axes.hist(its, edges, color=colour, alpha=0.6, density=True, label=name)
    axes.set(xlabel="anomaly score", ylabel="share of the class", yticks=[])


def auc(axes: Axes, of: Scores) -> None:
    """Two classes of scores, and what the AUC counts."""
    _histograms(axes, of)
    value = METRICS["AUC"](of.minority, of.new)
    axes.set_title(f"AUC {value:.2f}: of 100 pairs of both classes,\nin {100 * value:.0f} the "
                   "minority image scores higher")  # fmt: skip
    axes.legend()


def aupr(axes: Axes, of: Scores) -> None:
    """Precision and recall of finding each class, with what chance gives."""
    for wanted, score, colour, name in (
        (~of.minority, -of.new, MAJORITY, "AUPR-maj"),
        (of.minority, of.new, MINORITY, "AUPR-min"),
    ):
        precision, recall, _ = precision_recall_curve(wanted, score)
        value = METRICS[name](of.minority, of.new)
        axes.plot(recall, precision, color=colour, label=f"{name} {value:.2f}")
        axes.axhline(wanted.mean(), color=colour, linestyle=":")
    axes.set(
        xlabel="recall: share of the class that is found", ylabel="precision: share that is right"
    )
    axes.set(ylim=(0, 1.02), title="Dotted: by chance, the share of the class")
    axes.legend(loc="lower left")


def sensitivity(axes: Axes, of: Scores) -> None:
    """A ROC curve and the point of one threshold."""
    alarms, found, _ = roc_curve(of.minority, of.new)
    axes.plot(alarms, found, color="black")
    at = np.flatnonzero(alarms <= 0.05)[-1]
    axes.plot(alarms[at], found[at], "o", color=MINORITY)
    axes.annotate(
        f"5 % false alarms,\n{100 * found[at]:.0f} % sensitivity",
        (alarms[at], found[at]),
        (0.25, 0.35),
        arrowprops={"arrowstyle": "->"},
    )
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(
        xlabel="false alarms: majority images flagged",
        ylabel="sensitivity: minority images flagged",
    )
    axes.set_title("A threshold is one point of the curve")


def p_value(axes: Axes, of: Scores) -> None:
    """Calibration scores, a new one, and those that are as high."""
    known = np.sort(of.calibration)
    new = (known[-3] + known[-2]) / 2
    higher = int((known >= new).sum())
    rng = np.random.default_rng(0)
    height = rng.uniform(0.1, 1, len(known))
    colours = np.where(known >= new, MINORITY, MAJORITY)
    axes.scatter(known, height, c=colours, s=14)
    axes.axvline(new, color="black")
    axes.annotate("the new image ", (new, 1.12), ha="right")
    axes.set(ylim=(0, 1.25), yticks=[], xlabel="anomaly score of 100 calibration images")
    axes.set_title(f"{higher} of 100 score as high: p = ({higher} + 1) / (100 + 1) = "
                   f"{(higher + 1) / 101:.2f}")  # fmt: skip


def promise(axes: Axes, of: Scores) -> None:
    """How the false alarms of a promised threshold vary from calibration to calibration."""
    rate = np.linspace(0, 0.15, 400)
    for patients, style in ((59, "-"), (200, "--"), (1000, ":")):
        # Of n scores the k-th highest is the threshold: the largest k that keeps the promise.
        k = max(k for k in range(1, patients) if beta.cdf(0.05, k, patients + 1 - k) >= 0.95)
        axes.plot(rate * 100, beta.pdf(rate, k, patients + 1 - k), style, color="black",
                  label=f"{patients} calibration patients")  # fmt: skip
    axes.axvline(5, color=MINORITY)
    axes.set(xlabel="% of all new majority images that are flagged", yticks=[])
    axes.set_title("Promised: at most 5 %, in 95 of 100 calibrations")
    axes.legend()


def prevalence(axes: Axes, of: Scores) -> None:
    """Of 1,000 images, the flagged ones, at three prevalences."""
    shares = (0.5, 0.1, 0.01)
    right = [1000 * share * 0.6 for share in shares]
    wrong = [1000 * (1 - share) * 0.05 for share in shares]
    names = [f"{100 * share:.0f} % minority" for share in shares]
    axes.barh(names, right, color=MINORITY, label="flagged minority images")
    axes.barh(names, wrong, left=right, color=MAJORITY, label="false alarms")
    for i, (r, w) in enumerate(zip(right, wrong, strict=True)):
        axes.annotate(
            f" {r:.0f} of {r + w:.0f}: {100 * r / (r + w):.0f} %", (r + w, i), va="center"
        )
    axes.set(xlim=(0, 480), xlabel="of 1,000 images, flagged")
    axes.set_title("60 % sensitivity, 5 % false alarms, three prevalences")
    axes.invert_yaxis()
    axes.legend(loc="lower right")


def shift(axes: Axes, of: Scores) -> None:
    """The same threshold before and after a change of scanner."""
    threshold = np.quantile(of.calibration, 0.95)
    moved = of.new[~of.minority] + 1.5 * of.calibration.std()
    edges = np.histogram_bin_edges(np.concatenate([of.calibration, moved]), 30)
    for scores, colour, name in (
        (of.calibration, MAJORITY, "calibration"),
        (moved, "grey", "new scanner"),
    ):
        flagged = 100 * (scores > threshold).mean()
        axes.hist(scores, edges, color=colour, alpha=0.6, density=True,
                  label=f"{name}: {flagged:.0f} % flagged")  # fmt: skip
    axes.axvline(threshold, color="black")
    axes.set(xlabel="anomaly score of majority images", yticks=[])
    axes.set_title("The same threshold, another scanner")
    axes.legend()


DRAWINGS: list[Callable[[Axes, Scores], None]] = [
    auc,
    aupr,
    sensitivity,
    p_value,
    promise,
    prevalence,
    shift,
]


def draw_all(folder: Path) -> None:
    """Draw each into ``NAME.svg`` of a folder."""
    folder.mkdir(exist_ok=True)
    of = Scores()
    for drawing in DRAWINGS:
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        with rc_context({"svg.fonttype": "none"}):  # letters stay letters
            styled(drawing)(figure.subplots(), of)
            save_figure(figure, folder / f"{drawing.__name__.replace('_', '-')}.svg")


if __name__ == "__main__":
    draw_all(Path(__file__).parent / "drawings")
