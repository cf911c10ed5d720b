"""The contract: what every one-class detector takes, promises and saves.

A method writes ``_build``, ``_fit`` and ``_score`` (and ``_embed``, ``_reconstruct`` where it has
them); validation, threshold, labels, sign and saving are here, once.

Letters: n images, c channels, h and w pixels, d features of a vector or of the bottleneck.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import GroupKFold
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from conocc import training
from conocc.detectors import input_validation, persistence
from conocc.detectors.encoder import encoded, encoder_hash, read_encoder
from conocc.detectors.input_validation import (
    NORMALIZE,
    among,
    digests,
    group_digests,
    patients_of,
)
from conocc.detectors.residual_scale import ResidualScale, scale_of
from conocc.io.progress import bar
from conocc.metrics.ranking import group_names, must_pass
from conocc.thresholds.conformal import Calibration, calibrate
from conocc.training import Batches, Chance, Checkpoint, Train, default_settings

logger = logging.getLogger("conocc")

COUNT = Interval(Integral, 1, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
SHARE = Interval(Real, 0, 1, closed="right")
# Of the images, or of their patients, that set the threshold by being held out in turn.
FOLDS, FEWEST_FOLDS = 5, 3
# About as many images, from all over, set the scale of residuals: for AnoGAN each is a search.
RESIDUAL_IMAGES = 256


def param(default: Any, *allowed: Any) -> Any:
    """Declare a parameter: its default, and what scikit-learn's validation is to allow."""
    return field(default=default, metadata={"allowed": [*allowed]})


class NonFiniteError(ValueError):
    """The score of an image is no finite number."""


@dataclass(kw_only=True, eq=False, repr=False)
class OneClassDetector(OutlierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What all methods share. A method is a dataclass, whose fields are its parameters.

    ``X`` is an array of images (n, h, w) or (n, c, h, w) with sides from 16 and one or three
    channels, or of feature vectors (n, d); of any real type, finite. It is validated in blocks
    and cast batch by batch, never copied whole, so that it may be a memory map.

    Parameters
    ----------
    normalize : {"zscore", "minmax", "none"}
        Intensities of an image, each by itself; of vectors, each feature over the training set.
    false_alarms : float in (0, 0.5], or None
        Rate of new majority images that may fall below the threshold. It is estimated on images
        that were held out, and promised by `calibrate` alone. None sets no threshold, and holds
        nothing out: `predict` then needs `calibrate`.
    minority : {"leave out", "refuse"}
        What `fit` and `calibrate` do with rows that `y` marks as minority, −1.
    encoder : str or None
        An ONNX file: the method sees what that makes of an image, and not the image. The graph is
        kept with the model, in which ``sha256:`` and its hash stand in the place of its path.
    layer : str or None
        Which of the encoder's outputs or inner layers is seen; its only output by default.
    random_state : int, RandomState or None
        0 is a seed like any other; None draws one and keeps it in ``seed_``.
    device : str
        "auto" (CUDA where there is one, else CPU), "cpu", "cuda" or "cuda:1".
    verbose : int
        0 is silent, 1 shows progress.

    Attributes
    ----------
    input_shape_ : tuple of int
        Shape of one image (c, h, w) or one vector (d,).
    offset_ : float or None
        `score_samples` at the threshold: below it `predict` says −1 (minority). Set by scores of
        held-out images (`false_alarms`); once calibrated, by the smallest of 5, 10 and 20 % false
        alarms that the calibration promises with 95 % certainty, if it can. None where neither set
        one.
    held_out_offset_ : float or None
        What it is of held-out images, where no calibration promises anything.
    history_ : list of dict
        One row an epoch: stage, epoch, and each term of the loss.
    seed_ : int
        The seed that made the fit; drawn when `random_state` is None.
    threads_ : int
        The number of threads that trained, on which the last bits of the weights hang.
    training_digests_ : ndarray of shape (n, 16), uint8
        A hash of each training image, by which `knows` recognises it.
    training_patients_ : ndarray of shape (p, 16), uint8
        A hash of each of the `groups` given to `fit`.
    preprocessing_ : dict or None
        How files were read (`Cohort.preprocessing`), once saved with a model.
    origin_ : dict
        What is known of the files of the images, where a run noted it: ``key``, the fingerprint
        of the key with which patients' names are hashed (`Cohort.key`), and ``acquisition``, what
        `conocc.data.acquisition.quantiles` gives of the training images.
    calibration_ : Calibration or None
        Scores of majority images that were never trained on, once `calibrate` has seen some.
    calibration_digests_, calibration_patients_ : ndarray of shape (n, 16) and (p, 16), uint8
        Hashes of these images and of their patients.
    residual_scale_ : ResidualScale or None
        How large `differences` of majority images are: of calibration images, and until `calibrate`
        has seen some, of training images. None for vectors, and without such a map.
    other_scores_ : dict
        By the name of a score that is not in force (`ScoredByReconstruction`), its own threshold,
        calibration and scale.
    """

    normalize: str = param("zscore", StrOptions(set(NORMALIZE)))
    false_alarms: float | None = param(0.1, Interval(Real, 0, 0.5, closed="right"), None)
    minority: str = param("leave out", StrOptions({"leave out", "refuse"}))
    encoder: str | None = param(None, str, None)
    layer: str | None = param(None, str, None)
    random_state: Any = param(None, "random_state")
    device: str = param("auto", str)
    verbose: int = param(0, "verbose")

    # Whether each fold of the images is scored by a fit to the others, after which the whole is
    # fitted; or the first fold alone is, by the one fit, which then never learns it.
    _scores_all_folds: ClassVar[bool] = True
    # Whether scores grow in proportion to the number of images that were learned.
    _grows: ClassVar[bool] = False
    # How many held-out images, drawn by the seed, give `offset_`: as a rule all of them.
    _threshold_images: ClassVar[int | None] = None

    # One more each time that the same parameters, seed and images come to give other numbers, so
    # that no model, checkpoint or row of a study is taken for what this version would make.
    revision: ClassVar[int] = 1

    # Which map of an image and its reconstruction `_difference` gives, as `ResidualScale.of` says.
    _draws: ClassVar[str] = "residual"

    # Whether of an encoder's layer the map is seen, (c, h, w), and not the mean over its places.
    _takes_maps: ClassVar[bool] = False

    # A sentence that says why the score is no graph of tensor operations, where it is none.
    _no_graph: ClassVar[str] = ""

    # What a method writes. `_build` makes the modules that `_fit` trains and `load` fills.

    def _build(self) -> None:
        """Make the modules for `input_shape_`, under names that end in an underscore."""

    @abstractmethod
    def _fit(self, X: Batches, train: Train) -> None:
        """Learn from normalised batches; `train` runs stages, and is called at most once.

        What is drawn outside of a stage's losses is drawn ``with X.chance``.
        """

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """Score a normalised batch: (n, c, h, w) or (n, d) -> (n,), higher less like majority."""

    # Learning.

    @property
    def _parameter_constraints(self) -> dict[str, list[Any]]:
        return {each.name: each.metadata["allowed"] for each in fields(self)}

    def check_params(self) -> None:
        """Refuse parameters that `fit` would refuse, and a device that this machine lacks.

        Raises
        ------
        ValueError
            With the parameter, what it must be, and what it is.
        """
        self._checked_encoder()

    def _checked_encoder(self) -> np.ndarray | None:
        """Do what `check_params` says, and give the graph of the encoder, if there is one."""
        self._validate_params()
        self._device()
        return None if self.encoder is None else read_encoder(self.encoder, self.layer)

    def plain_params(self, **changes: Any) -> dict[str, Any]:
        """Give the parameters, but for changes, as JSON gives them back: plain numbers, lists."""
        params = {**self.get_params(), **changes}
        if self.encoder is not None:
            params["encoder"] = encoder_hash(self.encoder)
        return persistence.plain(params)

    def fit(
        self, X: Any, y: Any = None, groups: Any = None, *, checkpoint: str | Path | None = None
    ) -> Self:
        """Learn the majority class.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, c, h, w) or (n, d)
            Majority images or vectors only, at least two.
        y : array of shape (n,), optional
            Rows of −1 are minority images, and left out (see `minority`).
        groups : array of shape (n,), optional
            The patient of each image; only hashes of them are kept.
        checkpoint : path, optional
            A file that holds the state of an unfinished fit. If it exists, the fit goes on from
            it and ends with the numbers of an unbroken one. It is not deleted.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For minority images in `y`, an `X` of the wrong shape, size or type, NaN or infinite
            values, or a checkpoint of another fit.
        """
        graph = self._checked_encoder()
        array, groups = self._majority(self._checked(X, reset=True), y, groups)
        if len(array) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two images to learn from; "
                f"got n_samples = {len(array)}."
            )
        of_columns = {"feature_names_in_", "n_features_in_"} if array.ndim == 2 else set()
        for name in [k for k in vars(self) if k.endswith("_") and k not in of_columns]:
            delattr(self, name)  # or what is interrupted would score by halves of two fits
        self.input_shape_: tuple[int, ...] = array.shape[1:]
        self.seed_ = _seed(self.random_state)
        self.training_digests_ = digests(array)
        self.training_patients_ = patients_of(groups)
        self.preprocessing_: dict[str, Any] | None = None
        self.origin_: dict[str, Any] = {}
        self.calibration_: Calibration | None = None
        self.calibration_digests_ = self.calibration_patients_ = np.empty((0, 16), np.uint8)
        self.other_scores_: dict[str, Any] = {}
        if graph is not None:
            self.encoder_graph_ = graph
            array = self._seen(array)
            self.seen_shape_: tuple[int, ...] = array.shape[1:]
            input_validation.refuse_unusable(array)
        folds = self._held_out(groups)
        scores = []
        with default_settings(self._device()):
            if self._scores_all_folds:
                for others, rows in folds:
                    self._learn(array, others)
                    growth = len(array) / len(others) if self._grows else 1.0
                    scores.append(growth * self._scores(array[rows]))
                self._learn(array)
            else:
                self._learn(array, folds[0][0] if folds else None, checkpoint)
                scores = [self._scores(self._drawn(array[rows])) for _, rows in folds]
            self.threads_ = torch.get_num_threads()
            self.residual_scale_ = self._residual_scale(self._drawn(array), source="training")
        self.held_out_offset_ = self._offset(np.concatenate(scores)) if scores else None
        self.offset_ = self.held_out_offset_
        return self

    def _learn(
        self,
        array: np.ndarray,
        rows: np.ndarray | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        """Fit to all rows of an array, or to some."""
        if self._sees_features:
            scale = input_validation.feature_scale(
                array if rows is None else array[rows], self.normalize
            )
            self.feature_offset_, self.feature_scale_ = scale
        chance = Chance(self.seed_, self._device())
        with chance:
            self._build()
        batches = self._batches(array, chance, rows)
        self.history_: list[dict[str, Any]] = []
        kept = None if checkpoint is None else self._checkpoint(checkpoint)
        train = partial(training.train, X=batches, checkpoint=kept, verbose=self.verbose)
        self._fit(batches, train)

    def _held_out(self, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Divide the rows to learn from those held out, by fold, no patient and no image in two.

        Every fold that is scored; none without a threshold.
        """
        if self.false_alarms is None:
            return []
        images = self.training_digests_.view("V16")[:, 0]
        for names in (images if groups is None else group_names(groups), images):
            code = np.unique(names, return_inverse=True)[1]
            if (k := min(FOLDS, int(code.max()) + 1)) >= FEWEST_FOLDS:
                folds = GroupKFold(k, shuffle=True, random_state=self.seed_ % 2**32)
                used = None if self._scores_all_folds else 1
                return list(islice(folds.split(code, groups=code), used))
        logger.warning(
            f"No threshold is set: it takes {FEWEST_FOLDS} different images to hold some out."
        )
        return []

    def _offset(self, scores: np.ndarray) -> float:
        """Give the threshold that new images exceed at a rate of `false_alarms`, as p-values do."""
        assert self.false_alarms is not None  # or nothing was held out
        passing = int(must_pass(len(scores) + 1, 1 - self.false_alarms))
        return -float(np.sort(scores)[min(passing, len(scores)) - 1])

    def calibrate(
        self, X: Any, y: Any = None, groups: Any = None, *, random_state: int = 0
    ) -> Self:
        """Keep the scores of majority images that were never trained on.

        They give `p_value` and `threshold`, `residual_scale_` and, where there are patients enough
        for a promise, `offset_`. What was learned stays as it is. A second call replaces the first.

        Parameters
        ----------
        X : array of shape (n, h, w), (n, c, h, w) or (n, d)
            Majority images or vectors only, at least one.
        y : array of shape (n,), optional
            Rows of −1 are minority images, and left out (see `minority`).
        groups : array of shape (n,), optional
            The patient of each image; only hashes of them are kept. Without it, each image is
            taken as a patient of its own.
        random_state : int, default=0
            Seed of the draw of one image a patient.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit`; or if an image, or a patient, was trained on.
        """
        array, groups = self._majority(self._checked(X), y, groups)
        input_validation.warn_of_constant(array)
        images = digests(array)
        patients = patients_of(groups)
        for what, rows, learned in (
            ("images", images, self.training_digests_),
            ("patients", patients, self.training_patients_),
        ):
            if count := int(among(rows, learned).sum()):
                raise ValueError(
                    f"{count} of the {len(rows)} {what} to calibrate on were trained on; "
                    f"a calibration takes {what} that the detector has never seen."
                )
        array = self._seen(array)
        scores = self._scores(array)
        names = None if groups is None else group_names(groups)
        self.calibration_ = calibrate(scores, patient=names, random_state=_seed(random_state))
        self.calibration_digests_, self.calibration_patients_ = images, patients
        self.residual_scale_ = self._residual_scale(array, source="calibration")
        rate = self.calibration_.usual_rate()
        self.offset_ = self.held_out_offset_ if rate is None else -self.threshold(false_alarms=rate)
        return self

    # Scoring. scikit-learn's names have scikit-learn's sign; it is turned in `score_samples`.

    def anomaly_score(self, X: Any) -> np.ndarray:
        """Score images, higher is less like the majority class; -> (n,) float64.

        The score of an image does not depend on its batch, its order, or the other images.
        That of an image which has one value in all its pixels tells nothing, and is warned of in
        the log; ``conocc score`` lists such an image, and gives it none.

        Raises
        ------
        ValueError
            If `X` is not such as was learned, or holds an image so far from it that its score is
            no finite number.
        """
        array = self._checked(X)
        input_validation.warn_of_constant(array)
        return self._scores(self._seen(array))

    def score_samples(self, X: Any) -> np.ndarray:
        """Score images the way scikit-learn does, lower is less like the majority; -> (n,)."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less the threshold `offset_`: negative is minority; -> (n,).

        Raises
        ------
        ValueError
            As `anomaly_score`; or if there is no threshold.
        """
        scores = self.score_samples(X)
        if self.offset_ is None:
            raise ValueError(
                f"This {type(self).__name__} has no threshold: calibrate it, or fit it with "
                "false_alarms=0.1 or another rate."
            )
        return scores - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Label images +1 (majority) or −1 (minority); -> (n,) int."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X: Any, *, unit: str = "image") -> np.ndarray:
        """Give conformal p-values: how rare so high a score is among majority images; -> (n,).

        See `conocc.thresholds.conformal`, for the unit too: ``"image"`` or ``"patient"``.

        Raises
        ------
        ValueError
            If the detector is not calibrated, or the unit is not to be had.
        """
        return self._calibrated().p_values(self.anomaly_score(X), unit=unit)

    def threshold(
        self, *, false_alarms: float, confidence: float = 0.95, unit: str = "image"
    ) -> float:
        """Give the `anomaly_score` above which to call images minority, and seldom wrongly.

        The false-alarm rate on new majority images (or patients) is at most `false_alarms` with
        a certainty of `confidence`: see `conocc.thresholds.conformal.threshold`.

        Raises
        ------
        ValueError
            If the detector is not calibrated, or on too few patients for this promise.
        """
        return self._calibrated().threshold(
            false_alarms=false_alarms, confidence=confidence, unit=unit
        )

    def _calibrated(self) -> Calibration:
        check_is_fitted(self)
        if self.calibration_ is None:
            raise ValueError(
                f"This {type(self).__name__} is not calibrated; calibrate it on majority images "
                "that it was not trained on."
            )
        return self.calibration_

    @available_if(lambda self: hasattr(self, "_embed"))  # type: ignore[untyped-decorator]  # scikit-learn has no types
    def embed(self, X: Any) -> np.ndarray:
        """Give the bottleneck features; -> (n, d) float32."""
        return self._rows(self._embed, self._seen(self._checked(X))).numpy()

    @available_if(lambda self: hasattr(self, "_reconstruct") and self.encoder is None)  # type: ignore[untyped-decorator]  # likewise
    def reconstruct(self, X: Any) -> np.ndarray:
        """Give the reconstructions, in the units of `normalized`; shaped like its result."""
        return self._rows(self._reconstruct, self._seen(self._checked(X))).numpy()

    @available_if(lambda self: self._has_differences())  # type: ignore[untyped-decorator]  # likewise
    def differences(self, X: Any) -> np.ndarray:
        """Map where images differ from the majority; shaped like `normalized`'s result.

        `normalized` less `reconstruct`, whose squares add up to Eq. (6); of a method that is
        scored by 'correlation', one less the local correlation, whose mean is the score; of
        `LRT` and `GaborMahalanobis`, (n, 1, h, w), what each pixel adds to the score.
        """
        return self._rows(self._difference, self._seen(self._checked(X))).numpy()

    def normalized(self, X: Any) -> np.ndarray:
        """Give what the network, or its encoder, sees of `X`; -> (n, c, h, w) or (n, d) float32."""
        array = self._checked(X)
        if self.encoder is not None:
            return input_validation.minmax(torch.from_numpy(np.array(array, np.float32))).numpy()
        return self._rows(input_validation.unchanged, array).numpy()

    def score_files(self, where: Any, **how: Any) -> Any:
        """Score files, read as the training images were: the figures of ``conocc score``.

        Parameters
        ----------
        where : path or iterable of path
            Files, folders, archives, or tables that list images.
        rule : Rule, optional
            When an image is flagged; by default at the smallest usual rate that can be promised.
        table : TableOptions, optional
            How tables among `where` are read.
        n_jobs : int, optional
            Threads that decode; all cores by default.

        Returns
        -------
        DataFrame
            A row an image: ``path``, ``anomaly_score``, ``p_value`` (NaN without calibration),
            ``flagged`` (boolean; NA where nothing is promised) and ``error``, why a file has no
            score, for the last rows; nothing else is known of these.

        Raises
        ------
        ValueError
            If it was fitted to arrays, the rule refuses, or there is no image.
        FileNotFoundError
            If one of `where` does not exist.
        """
        from conocc.detectors import file_scores

        return file_scores.score_files(self, where, **how)

    def knows(self, X: Any, *, side: str = "training") -> np.ndarray:
        """Tell which images it was trained, or calibrated, on, by their pixels; -> (n,) bool.

        `side` is ``"training"`` or ``"calibration"``.
        """
        return among(digests(self._checked(X)), getattr(self, f"{side}_digests_"))

    def knows_patients(self, groups: Any, *, side: str = "training") -> np.ndarray:
        """Tell which of the patients it was trained, or calibrated, on; (n,) -> (n,) bool."""
        check_is_fitted(self)
        return among(group_digests(groups), getattr(self, f"{side}_patients_"))

    # Keeping.

    def save(self, path: str | Path, *, preprocessing: dict[str, Any] | None = None) -> None:
        """Write one safetensors file with all that scoring needs; nothing in it can execute.

        Parameters
        ----------
        path
            The file; it is written whole or not at all.
        preprocessing
            How the images' files were read (`Cohort.preprocessing.to_dict()`), so that new files
            are read alike.
        """
        check_is_fitted(self)
        persistence.save(self, path, preprocessing or self.preprocessing_)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, of another program, class or revision of it, or a newer format.
        """
        return persistence.load(cls, path)

    def __sklearn_is_fitted__(self) -> bool:
        return "offset_" in vars(self)  # which a fit sets last

    def __getstate__(self) -> dict[str, Any]:
        # A detector that was fitted on a GPU can be unpickled where there is none.
        state = super().__getstate__().items()
        return {k: copy.deepcopy(v).cpu() if isinstance(v, nn.Module) else v for k, v in state}

    # Inside.

    def _checked(self, X: Any, *, reset: bool = False) -> np.ndarray:
        if not reset:
            check_is_fitted(self)
        input_validation.refuse_masked(X)
        frame_or_sparse = hasattr(X, "columns") or hasattr(X, "tocsr")
        array: np.ndarray = X if frame_or_sparse else input_validation.as_array(X)
        if getattr(array, "ndim", 2) in (3, 4):
            array = input_validation.checked_images(array)
        else:
            array = validate_data(self, array, reset=reset, dtype="numeric", order=None)
            input_validation.refuse_unusable(array)
        if not reset and array.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X holds arrays of shape {array.shape[1:]}; {type(self).__name__} was fitted on "
                f"{self.input_shape_}. That is (channels, rows, columns), or (features,)."
            )
        return array

    @property
    def _shape(self) -> tuple[int, ...]:
        """Shape of what the method sees: of an image or vector, or what its encoder makes of it."""
        return self.input_shape_ if self.encoder is None else self.seen_shape_

    @property
    def _sees_features(self) -> bool:
        return len(self.input_shape_) == 1 or self.encoder is not None

    def _seen(self, array: np.ndarray) -> np.ndarray:
        """Give what the method sees of checked images or vectors."""
        if self.encoder is None:
            return array
        if array.ndim == 2:
            raise ValueError(f"An encoder takes images; X holds vectors, of shape {array.shape}.")
        return encoded(self.encoder_graph_, array, as_map=self._takes_maps, verbose=self.verbose)

    def _majority(
        self, array: np.ndarray, y: Any, groups: Any
    ) -> tuple[np.ndarray, np.ndarray | None]:
        refuse = self.minority == "refuse"
        return input_validation.majority_only(array, y, groups, refuse=refuse)

    def _drawn(self, array: np.ndarray) -> np.ndarray:
        """Give the images whose scores set the threshold."""
        count = self._threshold_images
        if count is None or len(array) <= count:
            return array
        rows = np.random.default_rng(self.seed_).choice(len(array), count, replace=False)
        return array[np.sort(rows)]

    def _batches(
        self, array: np.ndarray, chance: Chance | None = None, rows: np.ndarray | None = None
    ) -> Batches:
        device = self._device()
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                value.to(device).eval()
        chance = chance or Chance(self.seed_, device)
        return Batches(array, self._normalization(device), device, chance, rows)

    def _normalization(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        if not self._sees_features:
            return NORMALIZE[self.normalize]
        offset, scale = (
            torch.from_numpy(a).to(device) for a in (self.feature_offset_, self.feature_scale_)
        )
        return lambda x: (x - offset) / scale

    def _scores(self, array: np.ndarray) -> np.ndarray:
        scores = self._rows(self._score, array).numpy().astype(np.float64)
        if (bad := np.flatnonzero(~np.isfinite(scores))).size:
            # No threshold tells where NaN lies.
            raise NonFiniteError(
                f"The score of image {bad[0]} of X is {scores[bad[0]]}: its values are too far "
                f"from those that this {type(self).__name__} was fitted to."
            )
        return scores

    def _residual_scale(self, array: np.ndarray, *, source: str) -> ResidualScale | None:
        if not self._has_differences() or len(self.input_shape_) == 1:
            return None
        some = array[:: max(1, len(array) // RESIDUAL_IMAGES)]
        with default_settings(self._device()):
            blocks = (rows.numpy(force=True) for rows in self._blocks(self._difference, some))
            return scale_of(blocks, source=source, of=self._draws)

    def _has_differences(self) -> bool:
        is_placed = self._draws == "contribution" and len(self._shape) == 3
        return is_placed or (hasattr(self, "_reconstruct") and self.encoder is None)

    def _difference(self, x: Tensor) -> Tensor:
        return x - self._reconstruct(x)

    def _rows(self, function: Callable[[Tensor], Tensor], array: np.ndarray) -> Tensor:
        """Apply a function of batches to a whole array; -> (n, ...), on the CPU."""
        with default_settings(self._device()):
            return training.concatenated(self._blocks(function, array), len(array))

    def _blocks(self, function: Callable[[Tensor], Tensor], array: np.ndarray) -> Iterator[Tensor]:
        with bar("Scoring", len(array), verbose=self.verbose) as advance:
            for rows in training.apply(function, self._batches(array)):
                advance(len(rows))
                yield rows

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(
                f"Cannot use device {self.device!r}: choose 'auto', 'cpu', 'cuda' or, for the "
                "second card, 'cuda:1'. Others lack float64, in which sums are taken."
            )
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"Cannot use device {self.device!r}: {reason}") from error

    def _checkpoint(self, path: str | Path) -> Checkpoint:
        params = self.plain_params(random_state=self.seed_, **persistence.NEUTRAL)
        params["false_alarms"] = self.false_alarms is not None  # how many moves the threshold alone
        unset = ("encoder", "layer") if self.encoder is None else ()
        for name in ("minority", "scored_by", *unset):  # which nothing that is learned hangs on
            params.pop(name, None)
        images = hashlib.sha256(self.training_digests_.tobytes()).hexdigest()
        about = {"class": type(self).__name__, "revision": self.revision, "images": images}
        return Checkpoint(Path(path), {**about, **params})


def _seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    return int(check_random_state(random_state).randint(2**31 - 1))
