"""A bundle is what MONAI itself reads and runs, to the scores of the package."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from conftest import quick
from conocc.data.preprocessing import Preprocessing
from conocc.deploy.bundle import export_bundle
from conocc.experiments.inference import score_files


@pytest.fixture
def model(images, tmp_path):
    path = tmp_path / "model.safetensors"
    detector = quick("gabor_mahalanobis").fit(images[:, None])
    detector.save(path, preprocessing=Preprocessing(size=16).to_dict())
    return path


def test_a_bundle_takes_the_place_of_nothing(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is no empty folder"):
        export_bundle(model, tmp_path / "mine")


@pytest.mark.filterwarnings("ignore")  # of MONAI's own
def test_monai_runs_it(model, tmp_path):
    bundle = pytest.importorskip("monai.bundle")
    out = tmp_path / "bundle"
    export_bundle(model, out)
    (out / "images").mkdir()
    rng = np.random.default_rng(0)
    for i, (shape, depth) in enumerate(
        [((40, 30), np.uint8), ((16, 16), np.uint8), ((25, 70), np.uint16)]
    ):
        pixels = rng.integers(0, np.iinfo(depth).max, shape).astype(depth)
        Image.fromarray(pixels).save(out / "images" / f"{i}.png")
    workflow = bundle.ConfigWorkflow(
        config_file=str(out / "configs" / "inference.json"),
        meta_file=str(out / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(out),
    )
    workflow.initialize()
    workflow.run()
    score_files(model, [out / "images"], tmp_path / "scores.csv")
    expected, found = (
        {
            row["path"].rpartition("/")[2]: float(row["anomaly_score"])
            for row in csv.DictReader(path.open())
        }
        for path in (tmp_path / "scores.csv", out / "scores.csv")
    )
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-4)
    shutil.rmtree(out)
