"""An exported graph as a MONAI bundle: a folder that MONAI's own commands read and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conocc._version import __version__
from conocc.deploy.onnx import INPUT, SCORE, Parity, export_run
from conocc.experiments.run import load_model
from conocc.io.files import write_json

# Files of Pillow's formats: others, such as DICOM, are read by MONAI in other units.
READ = {"_target_": "LoadImage", "reader": "PILReader", "image_only": True}
SCORES = (
    f"$[float(@session.run(['{SCORE}'], {{'{INPUT}': @load(one).numpy()[None]}})[0][0]) "
    "for one in @images]"
)


def export_bundle(
    run: str | Path, out: str | Path, check: Sequence[str | Path] = (), **how: Any
) -> Parity:
    """Write a run as a bundle: ``models/model.onnx``, which resizes, and two files in ``configs``.

    ``python -m monai.bundle run --config_file configs/inference.json --bundle_root .`` then scores
    the files in ``images`` into ``scores.csv``. `check` and `how` are as for `export_run`, and so
    is what is returned.

    Raises
    ------
    FileExistsError
        If `out` is no empty folder.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"'{out}' is no empty folder. Choose another --out.")
    parity = export_run(run, out / "models" / "model.onnx", check, resize=True, **how)
    detector = load_model(run)
    c = detector.input_shape_[0]
    mode, channel = ("F", "no_channel") if c == 1 else ("RGB", -1)
    converter = f"$lambda image: image.convert('{mode}')"
    read = {**READ, "reverse_indexing": False, "converter": converter}
    inference = {
        "imports": ["$import csv", "$import onnxruntime", "$import pathlib"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_file": "$@bundle_root + '/scores.csv'",
        "images": "$sorted(map(str, pathlib.Path(@dataset_dir).iterdir()))",
        "session": "$onnxruntime.InferenceSession(@bundle_root + '/models/model.onnx')",
        "load": {
            "_target_": "Compose",
            "transforms": [read, {"_target_": "EnsureChannelFirst", "channel_dim": channel}],
        },
        "scores": SCORES,
        "rows": f"$[('path', '{SCORE}'), *zip(@images, @scores)]",
        "run": ["$csv.writer(open(@output_file, 'w', newline='')).writerows(@rows)"],
    }
    image = {"type": "image", "format": "magnitude", "num_channels": c, "spatial_shape": ["*", "*"]}
    score = {"type": "probabilities", "format": "classes", "num_channels": 1, "spatial_shape": [1]}
    metadata = {
        "version": __version__,
        "changelog": {__version__: "exported"},
        "required_packages_version": {"onnxruntime": parity.runtime, "pillow": "11"},
        "task": "Anomaly scores of images, higher the less they are like the majority class",
        "description": f"{type(detector).__name__}, fitted by conocc",
        "authors": "",
        "copyright": "",
        "intended_use": "Research. This is no medical device.",
        "network_data_format": {"inputs": {INPUT: image}, "outputs": {SCORE: score}},
    }
    write_json(out / "configs" / "inference.json", inference)
    write_json(out / "configs" / "metadata.json", metadata)
    return parity
