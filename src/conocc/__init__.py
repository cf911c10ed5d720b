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
    from conocc.cohort import Cohort
    from conocc.loading import load_cohort
    from conocc.methods import load
    from conocc.methods.anogan import AnoGAN
    from conocc.methods.cae import CAE
    from conocc.methods.cocsvm import COCSVM
    from conocc.methods.conocc import ConOCC
    from conocc.methods.dagmm import DAGMM
    from conocc.methods.dsvdd import DeepSVDD
    from conocc.methods.lrt import LRT
    from conocc.methods.ocsvm import OCSVM
    from conocc.methods.profile import Profile
    from conocc.methods.sae import SAE

_WHERE = {
    "CAE": "conocc.methods.cae",
    "COCSVM": "conocc.methods.cocsvm",
    "DAGMM": "conocc.methods.dagmm",
    "LRT": "conocc.methods.lrt",
    "OCSVM": "conocc.methods.ocsvm",
    "SAE": "conocc.methods.sae",
    "AnoGAN": "conocc.methods.anogan",
    "Cohort": "conocc.cohort",
    "ConOCC": "conocc.methods.conocc",
    "DeepSVDD": "conocc.methods.dsvdd",
    "Profile": "conocc.methods.profile",
    "load": "conocc.methods",
    "load_cohort": "conocc.loading",
}

__all__ = [
    "CAE",
    "COCSVM",
    "DAGMM",
    "LRT",
    "OCSVM",
    "SAE",
    "AnoGAN",
    "Cohort",
    "ConOCC",
    "DeepSVDD",
    "Profile",
    "__version__",
    "load",
    "load_cohort",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'conocc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
