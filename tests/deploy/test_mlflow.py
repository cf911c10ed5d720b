"""What a run holds is in MLflow afterwards, by its own reader, and nobody's name."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from test_cli import call


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of images whose folders and files are called by patients."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(24):
        file = tmp_path / "DoeJane" / ("odd" if i < 6 else "plain") / f"DoeJane{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(file)
    fit = ("fit", "DoeJane", "--majority", "plain", "--method", "cae", "--epochs", "3")
    code, said = call(*fit, "--out", "run", "--no-cache", "-q")
    assert code == 0, said
    code, said = call("evaluate", "run", "DoeJane", "--no-cache", "-q")
    assert code == 0, said
    return tmp_path / "run"


def test_without_mlflow_the_package_to_install_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert call("log", run) == (1, "Error: Logging needs MLflow: pip install 'conocc[mlflow]'.\n")


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_mlflows_own_reader_finds_the_figures(run, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    store = tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which it has put aside for a database
    mlflow.set_tracking_uri(store.as_uri())
    assert call("log", run, "--to", "elsewhere")[0] == 1
    code, said = call("log", run, "--experiment", "films")
    assert code == 0, said
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("films")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["method"] == "cae"
    assert found.data.params["epochs"] == "3"
    measured = json.loads((run / "metrics.json").read_text())["metrics"]
    assert found.data.metrics["AUC/value"] == measured["AUC"]["value"]
    assert found.data.metrics["sens at 5 per cent/value"] == measured["sens@5%"]["value"]
    names = [name for name in found.data.metrics if name.endswith(" L_AE")]
    (name,) = names
    assert [one.step for one in client.get_metric_history(found.info.run_id, name)] == [1, 2, 3]
    logged = [file for file in store.rglob("*") if file.is_file()]
    assert logged
    for file in logged:
        assert b"DoeJane" not in file.read_bytes(), file
