"""Scoring files with a fitted detector, read as its training images were."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch

from conocc.data.columns import TableOptions
from conocc.data.index import printable
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import Block, load_images
from conocc.detectors.one_class_detector import NonFiniteError
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import decisions

Row = tuple[Any, ...]
NO_SCORE = "'{}' has no score: its values are too far from those learned."


def preprocessing_of(detector: Any, run: str | os.PathLike[str] = "") -> Preprocessing:
    """Say how a detector reads files; one that was fitted to arrays is a `ValueError`."""
    if detector.preprocessing_ is None:
        whose = f"model of '{run}'" if run else f"{type(detector).__name__}"
        raise ValueError(f"The {whose} was fitted to arrays: it cannot read files.")
    return Preprocessing.from_dict(detector.preprocessing_)


def image_preprocessing_of(detector: Any, run: str | os.PathLike[str]) -> Preprocessing:
    """Say how a detector reads images; one that was fitted to features is a `ValueError`."""
    if len(detector.input_shape_) == 1:
        raise ValueError(f"'{run}' was fitted to features: there is no image to be looked at.")
    return preprocessing_of(detector, run)


def scores_of(detector: Any, images: np.ndarray) -> np.ndarray:
    """Score images, (n, c, h, w) -> (n,); one that has no score, NaN, takes no other with it."""
    try:
        return detector.anomaly_score(images)
    except NonFiniteError:
        if len(images) == 1:
            return np.full(1, np.nan)
        return np.concatenate([scores_of(detector, image[None]) for image in images])


def scored(detector: Any, block: Block) -> tuple[list[Row], Sequence[Row]]:
    """Give path, score and facts of images, and the errors of those that could not be read."""
    scores = scores_of(detector, block.images).tolist() if block.path else []
    columns = zip(*block.acquisition, strict=True)
    rows = [row for row in zip(block.path, scores, *columns, strict=True) if np.isfinite(row[1])]
    paths = [printable(path) for path, s in zip(block.path, scores, strict=True) if np.isnan(s)]
    return rows, [*block.errors, *((path, NO_SCORE.format(path)) for path in paths)]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have each thread run the network alone: nothing is gained, nor rounded otherwise, by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def score_files(
    detector: Any,
    where: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    rule: Rule = RULE,
    table: TableOptions = TableOptions(),
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Do what `OneClassDetector.score_files` says."""
    preprocessing = preprocessing_of(detector)
    decided = decisions(detector, rule)
    where = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    if not where:
        raise ValueError("There is no file to score: the list is empty.")
    how = {"table": table, "n_jobs": n_jobs, "verbose": detector.verbose}
    rows, errors = list[Row](), list[Row]()
    with one_torch_thread():
        for block in load_images(where, preprocessing, detector.input_shape_, **how):
            some, unread = scored(detector, block)
            rows += some
            errors += unread
    scores = np.array([row[1] for row in rows], float)
    flagged = decided.flagged(scores)
    frame = pd.DataFrame({"path": [row[0] for row in rows], "anomaly_score": scores})
    frame["p_value"] = pd.to_numeric(pd.Series(decided.columns(scores)[0], dtype=object))
    frame["flagged"] = pd.array([None] * len(rows) if flagged is None else flagged, "boolean")
    failed = pd.DataFrame(errors, columns=["path", "error"])
    return pd.concat([frame, failed], ignore_index=True) if errors else frame.assign(error=None)
