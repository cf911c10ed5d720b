"""What several test files share: small cohorts, and every method with few epochs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conocc.detectors import METHODS, method_class

# The suite runs in as many processes as there are cores; tiny tensors gain nothing by threads.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start, whose last bits count

# Which a shell has processes in the background ignore, and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Enough training for a promise to be kept or broken, not for a good score.
QUICK = {
    "conocc": {"epochs": 3, "interval": 1},
    "ocsvm": {},
    "cocsvm": {"epochs": 3},
    "cae": {"epochs": 3},
    "sae": {"epochs": 3},
    "dagmm": {"epochs": 3},
    "anogan": {"epochs": 3, "search_steps": 5},
    "dsvdd": {"epochs": 3, "pretrain_epochs": 2},
    "lrt": {"false_alarms": None},  # or it is fitted six times, for seconds
    "gabor_mahalanobis": {},
    "patches": {},
}


def quick(name: str, **params):
    """Make a method that trains for a moment, with a fixed seed."""
    return method_class(name)(**{"random_state": 0, **QUICK[name], **params})


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Decoded images of tests do not end in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONOCC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=list(METHODS))
def method(request) -> str:
    """The id of each method there is."""
    return request.param


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Twenty smooth 16-pixel images, float64."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(20, 4, 4))
    return np.kron(coarse, np.ones((4, 4))) + 0.1 * rng.normal(size=(20, 16, 16))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images, named by CONOCC_DATA."""
    folder = os.environ.get("CONOCC_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CONOCC_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture
def seeded() -> Iterator[None]:
    """Have torch draw the same numbers in each test, and the next one none of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A calibrated autoencoder of 16-pixel images of noise."""
    from fitted_runs import fitted  # which takes `quick` from here

    return fitted(tmp_path_factory.mktemp("fitted"))


# --- a real browser, in which pages are tried ----------------------------------------------------

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
    "--allow-file-access-from-files",  # or Chromium 156 gives a page an empty storage at times
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium with a new, empty profile."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no chromium with its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
