"""What an evaluation keeps of images and features, so that pictures need no model later.

``gallery.npz`` holds the images on which a method erred most and a montage of the test images,
``embedding.npz`` bottleneck features. Both are plain arrays, without pickles.

Letters: n images, k chosen ones, c channels, h and w pixels, d bottleneck features.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import numpy as np

from conocc.data.cohort import Cohort
from conocc.data.index import printable
from conocc.detectors.residual_scale import ResidualScale
from conocc.io.files import atomic_write, read_json
from conocc.io.words import reason

ARTIFACTS_FORMAT = 1
# Images of each class in the gallery and in the montage, and features of each group.
EXTREMES = 10
IN_MONTAGE = 16
EMBEDDED = 1000
PAIRS = 10_000
# Where a method keeps its center, if it has one.
CENTER = {"ConOCC": attrgetter("network_.mu"), "DeepSVDD": attrgetter("sphere_.c")}
# RuntimeError: encrypted, or compressed in a way that Python does not know.
DAMAGED = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Arrays:
    """Fields that are arrays, and their file."""

    def save(self, path: Path) -> None:
        """Write the arrays, whole or not at all."""
        arrays = {"format": np.array(ARTIFACTS_FORMAT), **vars(self)}
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; a damaged file is a `ValueError`."""
        try:
            # Opened here, since NumPy leaves a damaged archive open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                number = file["format"]
                if not np.array_equal(number, ARTIFACTS_FORMAT):
                    other = f"its format is {number}, this version reads {ARTIFACTS_FORMAT}"
                    raise ValueError(printable(other))
                return cls(**{field.name: file[field.name] for field in fields(cls)})
        except FileNotFoundError:
            raise
        except DAMAGED as error:
            raise ValueError(f"Cannot read '{path}': {reason(error)}.") from error


@dataclass(frozen=True, eq=False)
class Gallery(Arrays):
    """The majority images scored highest, the minority images scored lowest, and a montage.

    Attributes
    ----------
    input : ndarray of float32, shape (k, c, h, w)
        What the network saw: normalised units. The majority first, each class from its worst.
    reconstruction, residual : ndarray of float, shape (k, c, h, w), or (0, c, h, w)
        In the same units; the residual is that of `OneClassDetector.differences`. None of them
        where the method has no reconstruction, or no scale for the score in force.
    path, anomaly_score, minority : ndarray of shape (k,)
    montage : ndarray of float32, shape (m, c, h, w)
        Test images drawn with a seed, in the cohort's units; the majority first.
    montage_minority : ndarray of bool, shape (m,)
    montage_label : ndarray of str, shape (m,)
    residual_scale : ndarray of str, shape ()
        `ResidualScale` as JSON; empty without a reconstruction.
    """

    input: np.ndarray
    reconstruction: np.ndarray
    residual: np.ndarray
    path: np.ndarray
    anomaly_score: np.ndarray
    minority: np.ndarray
    montage: np.ndarray
    montage_minority: np.ndarray
    montage_label: np.ndarray
    residual_scale: np.ndarray

    def scale(self) -> ResidualScale:
        """Give the scale of majority images that `residual` is shown on."""
        return ResidualScale(**json.loads(str(self.residual_scale)))


@dataclass(frozen=True, eq=False)
class Embedding(Arrays):
    """Bottleneck features, of at most `EMBEDDED` images of each group, drawn with a seed.

    Attributes
    ----------
    train : ndarray of float32, shape (n, d)
        Of training images.
    test : ndarray of float32, shape (n', d)
    minority : ndarray of bool, shape (n',)
        The class of each test image.
    center : ndarray of float32, shape (1, d), or (0, d)
        μ, where the method has a center.
    images : ndarray of int, shape (3,)
        How many training, majority test and minority test images there were to draw from.
    """

    train: np.ndarray
    test: np.ndarray
    minority: np.ndarray
    center: np.ndarray
    images: np.ndarray

    def middle(self) -> np.ndarray:
        """Give μ, or the mean training feature where the method has no center; -> (d,)."""
        return self.center[0] if len(self.center) else self.train.mean(0)

    def compactness(self) -> float | None:
        """Compare how far the majority is from its center with how far the classes are apart.

        The mean distance of majority test images to the `middle`, divided by the mean distance
        between random pairs of a majority and a minority test image. The scale of the features
        cancels, so that methods that shrink them gain nothing by it; less is more compact.
        None where there is nothing to measure.

        Examples
        --------
        >>> z = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 4.0]])
        >>> given = {"train": z[:2], "test": z, "minority": np.array([False, False, True])}
        >>> there = Embedding(**given, center=np.zeros((1, 2)), images=np.array([2, 2, 1]))
        >>> round(there.compactness(), 3)  # 1 / √17
        0.243
        """
        majority, minority = self.test[~self.minority], self.test[self.minority]
        if not len(majority) or not len(minority) or not len(self.train) + len(self.center):
            return None
        generator = np.random.default_rng(0)
        a, b = (group[generator.integers(len(group), size=PAIRS)] for group in (majority, minority))
        apart = np.linalg.norm(a.astype(np.float64) - b, axis=1).mean()
        within = np.linalg.norm(majority.astype(np.float64) - self.middle(), axis=1).mean()
        return float(within / apart) if apart else None


def gallery_of(detector: Any, test: Cohort, anomaly_score: np.ndarray) -> Gallery:
    """Keep the test images that were scored worst, and some of each class as they come."""
    rows = extremes(test.minority, anomaly_score)
    images = test.take(rows).images
    given = detector.normalized(images)
    scale: ResidualScale | None = detector.residual_scale_
    again = left = given[:0]
    if scale is not None:
        given, again, left = explained(detector, images)
    classes = (test.rows(minority=minority) for minority in (False, True))
    some = test.take(np.concatenate([subsample(of_class, IN_MONTAGE) for of_class in classes]))
    return Gallery(
        input=given,
        reconstruction=again,
        residual=left,
        path=test.path[rows],
        anomaly_score=anomaly_score[rows],
        minority=test.minority[rows],
        montage=np.array(some.images),
        montage_minority=some.minority,
        montage_label=some.label,
        residual_scale=np.array(json.dumps(scale.as_json()) if scale else ""),
    )


def explained(detector: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give images as the method sees them, its reconstructions, and `differences`, on its scale.

    A method that makes no reconstruction has none of them, (0, c, h, w).
    """
    given = detector.normalized(images)
    again = detector.reconstruct(images) if hasattr(detector, "reconstruct") else given[:0]
    is_residual = detector.residual_scale_.of == "residual"  # AnoGAN would search once more
    return given, again, given - again if is_residual else detector.differences(images)


def embedding_of(detector: Any, trained_on: Cohort, test: Cohort) -> Embedding:
    """Keep bottleneck features of training images, where they are at hand, and of test images."""
    groups = [test.rows(minority=minority) for minority in (False, True)]
    tested = test.take(np.concatenate([subsample(group, EMBEDDED) for group in groups]))
    features = detector.embed(tested.images)
    learned = trained_on.take(subsample(trained_on.rows(), EMBEDDED)).images
    find_center = CENTER.get(type(detector).__name__)
    return Embedding(
        train=detector.embed(learned) if len(learned) else features[:0],
        test=features,
        minority=tested.minority,
        center=find_center(detector).numpy(force=True)[None] if find_center else features[:0],
        images=np.array([len(trained_on), *map(len, groups)]),
    )


def extremes(minority: np.ndarray, anomaly_score: np.ndarray, count: int = EXTREMES) -> np.ndarray:
    """Find the majority images scored highest, then the minority images scored lowest.

    >>> extremes(np.array([False, False, True, True]), np.array([1.0, 3.0, 4.0, 2.0]), count=1)
    array([1, 3])
    """
    order = np.argsort(anomaly_score, kind="stable")
    highest = order[~minority[order]][::-1][:count]
    lowest = order[minority[order]][:count]
    return np.concatenate([highest, lowest])


def subsample(rows: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Draw at most `count` of these rows, without repetition, in ascending order."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


# --- what was measured ---------------------------------------------------------------------------


def read_results(path: Path) -> dict[str, Any]:
    """Read ``metrics.json``, which an evaluation wrote; nothing where there was none."""
    keys = ("tested", "cohort", "metrics", "decision", "observed_rates", "counts", "prevalence")
    return read_json(path, *keys) if path.exists() else {}
