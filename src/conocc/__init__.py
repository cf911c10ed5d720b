"""One-class learning on medical images.

Train on the majority class alone, score new images by how far they fall from it
(Gao, Liu, Arefan, Panigrahy and Wu, *Constrained Deep One-Class Feature Learning For
Classifying Imbalanced Medical Images*).

Names are imported when they are first used, so that ``import conocc`` takes no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from conocc._version import __version__

if TYPE_CHECKING:
    from conocc.data.cohort import Cohort as Cohort
    from conocc.data.load import load_cohort as load_cohort
    from conocc.data.preprocessing import Preprocessing as Preprocessing
    from conocc.detectors import load as load
    from conocc.detectors.anogan import AnoGAN as AnoGAN
    from conocc.detectors.cae import CAE as CAE
    from conocc.detectors.cocsvm import COCSVM as COCSVM
    from conocc.detectors.conocc import ConOCC as ConOCC
    from conocc.detectors.dagmm import DAGMM as DAGMM
    from conocc.detectors.deep_svdd import DeepSVDD as DeepSVDD
    from conocc.detectors.gabor_mahalanobis import GaborMahalanobis as GaborMahalanobis
    from conocc.detectors.lrt.lrt import LRT as LRT
    from conocc.detectors.ocsvm import OCSVM as OCSVM
    from conocc.detectors.patches import Patches as Patches
    from conocc.detectors.sae import SAE as SAE
    from conocc.experiments.model_selection import SCORERS as SCORERS
    from conocc.experiments.model_selection import OneClassKFold as OneClassKFold
    from conocc.experiments.model_selection import one_class_scorer as one_class_scorer

_WHERE = {
    "CAE": "conocc.detectors.cae",
    "COCSVM": "conocc.detectors.cocsvm",
    "DAGMM": "conocc.detectors.dagmm",
    "LRT": "conocc.detectors.lrt.lrt",
    "OCSVM": "conocc.detectors.ocsvm",
    "OneClassKFold": "conocc.experiments.model_selection",
    "Patches": "conocc.detectors.patches",
    "SAE": "conocc.detectors.sae",
    "SCORERS": "conocc.experiments.model_selection",
    "AnoGAN": "conocc.detectors.anogan",
    "Cohort": "conocc.data.cohort",
    "ConOCC": "conocc.detectors.conocc",
    "DeepSVDD": "conocc.detectors.deep_svdd",
    "GaborMahalanobis": "conocc.detectors.gabor_mahalanobis",
    "Preprocessing": "conocc.data.preprocessing",
    "load": "conocc.detectors",
    "load_cohort": "conocc.data.load",
    "one_class_scorer": "conocc.experiments.model_selection",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'conocc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
