"""A finished run told to MLflow after the fact: parameters, metrics and history, and no name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from conocc.experiments.artifacts import read_results
from conocc.experiments.run import model_path, read_run

# Of run.json: what names no file, folder or patient.
TOLD = ("method", "preprocessing", "seed", "seconds", "threads", "versions")


def log_run(run: str | Path, experiment: str = "conocc") -> str:
    """Log a finished run where MLflow is told to (``MLFLOW_TRACKING_URI``); give its id there.

    Parameters of the method and of reading; of an evaluated run each metric with its interval; of
    each epoch the terms of the loss. Neither paths nor the names of the cohort, of classes or of
    patients are logged, nor the command, which holds such.

    Raises
    ------
    ValueError
        If the run is not finished, or the extra ``mlflow`` is not installed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise ValueError("Logging needs MLflow: pip install 'conocc[mlflow]'.") from error
    run = Path(run)
    model_path(run)  # or it is not finished
    about = read_run(run)
    params = {**about["params"], **{key: about[key] for key in TOLD if key in about}}
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=about["method"]) as active:
        mlflow.log_params(_flat(params))
        if found := read_results(run / "metrics.json"):
            measured = {**found["metrics"], "prevalence": found["prevalence"]}
            mlflow.log_metrics(
                {
                    name.replace("%", " per cent").replace("@", " at "): float(value)
                    for name, value in _flat(measured).items()
                    if isinstance(value, int | float)
                }
            )
        for step, row in enumerate(pd.read_csv(run / "history.csv").to_dict("records"), 1):
            terms = {k: v for k, v in row.items() if k not in ("stage", "epoch") and v == v}
            mlflow.log_metrics({f"{row['stage']} {k}": v for k, v in terms.items()}, step=step)
    return active.info.run_id


def _flat(values: dict[str, Any]) -> dict[Any, Any]:
    """Name what is nested by its path, as in ``AUC/low``."""
    return pd.json_normalize(values, sep="/").to_dict("records")[0]
