"""Who trains: this project, Keras on JAX, a PyTorch loop as one would write it down.

``python -m benchmarks.contestants NAME SIDE IMAGES EPOCHS [DEVICE]``, started by
`benchmarks.training` and `benchmarks.gpu`. All learn the same network on the same images by
Eq. (3), in batches of 128 with Adam; the peers get their images z-scored beforehand, and the center
of Eq. (1) as it was before the first epoch.

Letters: n images, h and w pixels, d bottleneck features.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.contest import serve, timed
from benchmarks.operations import BOTTLENECK, CHANNELS, parameters, sides

BATCH = 128
GAMMA = 10.0
LR = 1e-3

Work = Callable[[], object]


def images(n: int, side: int) -> np.ndarray:
    """Draw z-scored noise, (n, side, side) float32; what is learned does not change the time."""
    x = np.random.default_rng(0).standard_normal((n, side, side), dtype=np.float32)
    mean, deviation = x.mean((1, 2), keepdims=True), x.std((1, 2), keepdims=True)
    return np.asarray((x - mean) / deviation)


def conocc(x: np.ndarray, epochs: int, device: str) -> tuple[Work, int]:
    """Fit through the public door, all that a fit does included."""
    from conocc import ConOCC

    detector = ConOCC(epochs=epochs, schedule="joint", random_state=0, device=device)
    once = ConOCC(epochs=1, schedule="joint", device=device).fit(x[:2])
    count = sum(p.numel() for p in once.network_.parameters())
    return lambda: detector.fit(x), count


def keras(x: np.ndarray, epochs: int, device: str) -> tuple[Work, int]:
    """Train by `Model.fit` on JAX, which compiles the step, and takes the card that it finds."""
    os.environ |= {"JAX_PLATFORMS": device, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers, ops

    side = x.shape[1]
    *outer, innermost = sides(side, CHANNELS)
    image = keras.Input((side, side, 1))
    y = image
    for width in CHANNELS:
        y = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(y)
    z = layers.Dense(BOTTLENECK)(layers.Flatten()(y))
    y = layers.Dense(innermost**2 * CHANNELS[-1], activation="relu")(z)
    y = layers.Reshape((innermost, innermost, CHANNELS[-1]))(y)
    widths = [*reversed(CHANNELS[:-1]), 1]
    for width, target in zip(widths, reversed(outer), strict=True):
        y = layers.UpSampling2D(2)(y)
        y = layers.Conv2D(width, 3, padding="same", activation=None if width == 1 else "relu")(y)
        extra = y.shape[1] - target
        if extra:
            y = layers.Cropping2D(((0, extra), (0, extra)))(y)

    def l_ae(x, x_hat):  # type: ignore[no-untyped-def]
        return ops.sum(ops.square(x_hat - x), axis=(1, 2, 3))

    def l_con(mu, z):  # type: ignore[no-untyped-def]
        return ops.sum(ops.square(z - mu), axis=1)

    model = keras.Model(image, [y, z])
    model.compile(
        optimizer=keras.optimizers.Adam(LR), loss=[l_ae, l_con], loss_weights=[1.0, GAMMA]
    )
    x = x[..., None]
    mu = np.tile(keras.Model(image, z).predict(x, verbose=0).mean(0), (len(x), 1))
    fit = lambda: model.fit(x, [x, mu], batch_size=BATCH, epochs=epochs, verbose=0)  # noqa: E731
    return fit, model.count_params()


def pytorch(x: np.ndarray, epochs: int, device: str) -> tuple[Work, int]:
    """Train by a loop over a DataLoader, with the layers that PyTorch has for it."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    maps = sides(x.shape[1], CHANNELS)
    flat = CHANNELS[-1] * maps[-1] ** 2
    encoder = nn.Sequential(
        nn.Conv2d(1, CHANNELS[0], 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS[0], CHANNELS[1], 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(CHANNELS[1], CHANNELS[2], 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, BOTTLENECK),
    )
    decoder = nn.Sequential(
        nn.Linear(BOTTLENECK, flat),
        nn.ReLU(),
        nn.Unflatten(1, (CHANNELS[2], maps[3], maps[3])),
        nn.Upsample(size=maps[2]),
        nn.Conv2d(CHANNELS[2], CHANNELS[1], 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=maps[1]),
        nn.Conv2d(CHANNELS[1], CHANNELS[0], 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=maps[0]),
        nn.Conv2d(CHANNELS[0], 1, 3, padding=1),
    )
    every = [*encoder.to(device).parameters(), *decoder.to(device).parameters()]
    optimizer = torch.optim.Adam(every, lr=LR)
    data = torch.from_numpy(x[:, None])
    with torch.no_grad():
        mu = encoder(data.to(device)).mean(0)
    loader = DataLoader(TensorDataset(data), batch_size=BATCH, shuffle=True)

    def work() -> None:
        for _ in range(epochs):
            for (images,) in loader:
                batch = images.to(device)
                z = encoder(batch)
                l_ae = ((decoder(z) - batch) ** 2).sum((1, 2, 3))
                loss = (l_ae + GAMMA * ((z - mu) ** 2).sum(1)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        loss.item()  # a card works on while the loop ends

    return work, sum(p.numel() for p in every)


CONTESTANTS = {"conocc": conocc, "keras": keras, "pytorch": pytorch}


def main(name: str, side: int, n: int, epochs: int, device: str) -> None:
    """Compete: images a second."""
    work, count = CONTESTANTS[name](images(n, side), epochs, device)
    expected = parameters(side)
    if count != expected:
        raise ValueError(f"{name} has {count} parameters at {side} pixels, not {expected}.")
    serve(lambda: timed(work, n * epochs))


if __name__ == "__main__":
    name, *numbers = sys.argv[1:5]
    main(name, *(int(number) for number in numbers), "".join(sys.argv[5:]) or "cpu")
