"""C-OCSVM: a convolutional autoencoder, then a one-class SVM on its bottleneck features.

Section 3.1 of the paper: "a two-stage combination of CAE and OCSVM". The first stage is that of
`conocc.detectors.cae`, the second that of `conocc.detectors.ocsvm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from conocc.detectors.cae import reconstruction_stage
from conocc.detectors.ocsvm import (
    SVM_CONSTRAINTS,
    fit_svm,
    say_cost,
    svm_score,
    to_array,
)
from conocc.detectors.one_class_detector import OneClassDetector
from conocc.networks import CHANNELS, Autoencoder
from conocc.training import Batches, Train, apply


class COCSVM(OneClassDetector):
    """One-class SVM on the bottleneck features of a convolutional autoencoder.

    The features go into the SVM as the encoder gives them, not standardised: the paper uses "the
    same procedure as aforementioned in OCSVM", which has none, and the γ of "scale" makes the
    kernel blind to their unit.

    Parameters are those of `ConOCC` and `OCSVM`; `lr` is 1e-4 as for `CAE`, since the paper names
    none for this one. The second stage is done in one go: killed in it, a fit goes on from the
    last checkpoint of the first.

    Attributes
    ----------
    network_ : Autoencoder
        The trained autoencoder.
    support_vectors_, dual_coef_, rho_, kernel_gamma_
        Those of `OCSVM`, of bottleneck features.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((8, 16, 16))
    >>> COCSVM(epochs=2, random_state=0).fit(images).anomaly_score(images).shape
    (8,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **OneClassDetector._parameter_constraints,
        **SVM_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        epochs: int = 1000,
        lr: float = 1e-4,
        batch_size: int = 128,
        nu: float = 0.5,
        kernel_gamma: float | str = "scale",
        bottleneck: int = 256,
        channels: Sequence[int] = CHANNELS,
        normalize: str = "zscore",
        contamination: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.nu = nu
        self.kernel_gamma = kernel_gamma
        self.bottleneck = bottleneck
        self.channels = channels
        self.normalize = normalize
        self.contamination = contamination
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _build(self) -> None:
        self.network_ = Autoencoder(self.input_shape_, self.bottleneck, self.channels)

    def _fit(self, X: Batches, train: Train) -> None:
        n, d = len(X), self.network_.bottleneck
        say_cost(n, d)
        self.history_ = train([reconstruction_stage(self.network_, lr=self.lr, epochs=self.epochs)])
        z = to_array(apply(self._embed, X), n, d)
        self.support_vectors_, self.dual_coef_, self.rho_, self.kernel_gamma_ = fit_svm(
            z, nu=self.nu, kernel_gamma=self.kernel_gamma, verbose=self.verbose
        )

    def _score(self, x: Tensor) -> Tensor:
        return svm_score(
            self._embed(x), self.support_vectors_, self.dual_coef_, self.rho_, self.kernel_gamma_
        )

    def _embed(self, x: Tensor) -> Tensor:
        z: Tensor = self.network_.encoder(x)
        return z

    def _reconstruct(self, x: Tensor) -> Tensor:
        x_hat: Tensor = self.network_(x)
        return x_hat
