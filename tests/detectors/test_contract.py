"""What every method promises, held against all of them."""

import csv
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import conocc
from conftest import quick
from conocc.data.phantoms import draw_phantom
from conocc.data.preprocessing import Preprocessing
from conocc.detectors import METHODS
from conocc.detectors.input_validation import as_array
from conocc.detectors.persistence import learned
from conocc.io.safetensors import read, write
from elsewhere import scores_of_model
from interrupting import interrupt_at, same
from test_cli import call

VECTORS = np.random.default_rng(1).normal(size=(30, 6))


@pytest.fixture
def fitted(method, images):
    return quick(method).fit(images)


def weights(detector) -> dict[str, np.ndarray]:
    return {name: tensor.numpy(force=True) for name, tensor in learned(detector)[0].items()}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


# --- scikit-learn -------------------------------------------------------------------------------


def test_scikit_learns_own_checks_pass(method):
    """None is excused but the array API's, which scikit-learn skips itself."""
    with pytest.warns(SkipTestWarning, match="SCIPY_ARRAY_API"):
        results = check_estimator(quick(method, random_state=None, false_alarms=0.1))
    assert {r["check_name"] for r in results if r["status"] != "passed"} == {
        "check_array_api_input"
    }


def test_clone_and_pickle_keep_what_they_should(fitted, images):
    assert not hasattr(clone(fitted), "offset_")
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))


# --- learning -----------------------------------------------------------------------------------


def test_refit_with_the_same_seed_is_identical(fitted, images):
    first = weights(fitted)
    assert equal(weights(fitted.fit(images)), first)


def test_seed_zero_is_a_seed_and_none_records_the_one_it_drew(method, images):
    assert quick(method, random_state=0).fit(images).seed_ == 0
    drawn = quick(method, random_state=None).fit(images)
    again = quick(method, random_state=drawn.seed_).fit(images)
    assert equal(weights(again), weights(drawn))


def test_the_callers_generators_and_threads_are_left_alone(method, images, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()  # noqa: NPY002  (that of callers)
    fitted = quick(method).fit(images)
    fitted.anomaly_score(images)
    fitted.save(tmp_path / "model")
    conocc.load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002  (that of callers)
    assert torch.get_num_threads() == before[2]


def test_images_are_not_modified(method, images):
    before = images.copy()
    quick(method).fit(images).anomaly_score(images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "float16", "float32", "bool"])
def test_any_real_type_is_taken(method, images, dtype):
    typed = (100 * (images - images.min())).astype(dtype)
    assert np.isfinite(quick(method).fit(typed).anomaly_score(typed)).all()


def test_a_read_only_memory_map_is_taken(method, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert equal(weights(quick(method).fit(mapped)), weights(quick(method).fit(images)))


def test_colour_images_are_taken(method, images):
    colour = np.stack([images, -images, images**2], axis=1)
    fitted = quick(method).fit(colour)
    assert fitted.input_shape_ == (3, 16, 16)
    assert np.isfinite(fitted.anomaly_score(colour)).all()


def test_constant_images_have_a_finite_score(fitted, images):
    """z-scoring must not divide by a deviation of zero, nor by rounding noise."""
    constant = np.full_like(images[:3], 0.1) + np.array([0, 1e9, 1e-42])[:, None, None]
    scores = fitted.anomaly_score(constant)
    assert np.isfinite(scores).all()
    assert np.allclose(scores, scores[0])


# --- scoring ------------------------------------------------------------------------------------


def test_scores_are_finite_and_distinct(fitted, images):
    scores = fitted.anomaly_score(images)
    assert scores.shape == (len(images),)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == len(images)


def assert_same_scores(scores, expected):
    """To six digits, or to five of how far scores differ: those of some methods cross zero."""
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-5 * float(np.std(expected)))


def films(n: int) -> np.ndarray:
    """Draw chest films of 32 pixels in a grey frame, an odd side in all; (n, 41, 41).

    All are alike, and much of them is one grey, so that rounding noise is large beside what they
    differ in.
    """
    drawn = draw_phantom("phantom-chestx", size=32, train=n, test_majority=0, test_minority=0)
    frame = ((0, 0), (4, 5), (5, 4))
    return np.pad(drawn.images.astype(np.float32), frame, constant_values=1000)


FILMS = films(130)  # 60 to learn from; the 70 others are more than a block


@cache
def fitted_to_films(method):
    fitted = quick(method).fit(FILMS[:60])
    assert method != "lrt" or fitted.description_.alignment.wanted
    return fitted


@pytest.mark.parametrize("threads", [1, 2])
def test_score_of_an_image_does_not_depend_on_its_batch(method, threads):
    """Alone, reversed, shuffled, at another place of a block, and between other images."""
    score, new = fitted_to_films(method).anomaly_score, FILMS[60:]
    torch.set_num_threads(threads)
    try:
        together = score(new)
        assert_same_scores(np.concatenate([score(x[None]) for x in new[:8]]), together[:8])
        assert_same_scores(score(new[::-1])[::-1], together)
        order = np.random.default_rng(0).permutation(len(new))
        assert_same_scores(score(new[order]), together[order])
        assert_same_scores(score(np.concatenate([new[:3], new]))[3:], together)
        others = np.random.default_rng(1).normal(size=(33, 41, 41)).astype(np.float32)
        among = np.concatenate([others, new, FILMS[:40], new + 5.0])
        assert_same_scores(score(among)[33 : 33 + len(new)], together)
    finally:
        torch.set_num_threads(1)


def test_score_of_a_file_does_not_depend_on_the_other_files(method, tmp_path):
    """By the command line: in another order, another folder, and between other files."""
    fitted_to_films(method).save(tmp_path / "model", preprocessing=Preprocessing(size=41).to_dict())
    order = np.random.default_rng(0).permutation(30)
    for folder, rows in (("given", np.arange(30)), ("other", order)):
        (tmp_path / folder).mkdir()
        for place, row in enumerate(rows):
            np.save(tmp_path / folder / f"{place:02}-film{row}.npy", FILMS[60 + row])
    for place in range(0, 30, 3):
        noise = np.random.default_rng(place).normal(size=(41, 41)).astype(np.float32)
        np.save(tmp_path / "other" / f"{place:02}-a.npy", noise)

    def scores(folder: str) -> dict[str, float]:
        table = tmp_path / f"{folder}.csv"
        code, said = call("score", tmp_path / "model", tmp_path / folder, "--out", table, "--quiet")
        assert code == 0, said
        with table.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {Path(row["path"]).stem[3:]: float(row["anomaly_score"]) for row in rows}

    given, other = scores("given"), scores("other")
    assert len(given) == 30
    assert len(other) == 31  # all noise has one name
    assert_same_scores([other[name] for name in given], list(given.values()))


def test_all_signs_follow_from_the_anomaly_score(method, images):
    fitted = quick(method, false_alarms=0.1).fit(images)
    scores = fitted.anomaly_score(images)
    assert np.array_equal(fitted.score_samples(images), -scores)
    assert np.array_equal(fitted.decision_function(images), -scores - fitted.offset_)
    assert np.array_equal(fitted.predict(images) == -1, -scores < fitted.offset_)


def test_the_threshold_is_set_by_images_that_were_held_out(method, images):
    """Of 20 images, methods without epochs score each by a fit to the other folds; others four.

    At a rate of 0.25 the threshold is the (n + 1) * 0.75-th smallest of their scores, rounded up.
    """
    fitted = quick(method, false_alarms=0.25).fit(images)
    folds = fitted._held_out(None)
    assert len({*np.concatenate([rows for _, rows in folds])}) == (
        20 if fitted._scores_all_folds else 4
    )
    scores = []
    for others, rows in folds:
        rest = np.delete(images, rows, axis=0)
        assert np.array_equal(rest, images[others])
        own = quick(method, false_alarms=None).fit(rest).anomaly_score(images[rows])
        scores += (own * (len(images) / len(rest) if method == "ocsvm" else 1)).tolist()
    place = {4: 4, 20: 16}[len(scores)]
    assert -fitted.offset_ == pytest.approx(sorted(scores)[place - 1], rel=1e-9)
    whole = images if fitted._scores_all_folds else rest
    again = quick(method, false_alarms=None).fit(whole)
    assert np.array_equal(again.anomaly_score(images), fitted.anomaly_score(images))


def test_no_patient_and_no_image_is_held_out_from_itself(images):
    detector = quick("ocsvm").fit(np.concatenate([images, images]))
    of_images = detector._held_out(None)
    assert all({*(rows % 20)} == {*(rows[rows < 20])} for _, rows in of_images)
    patients = np.repeat([*"abcd"], 10)
    of_patients = detector._held_out(patients)
    assert sorted("".join(sorted({*patients[rows]})) for _, rows in of_patients) == [*"abcd"]
    one_patient = detector._held_out(np.repeat("a", 40))
    assert [rows.tolist() for _, rows in one_patient] == [rows.tolist() for _, rows in of_images]


def test_without_a_rate_nothing_is_held_out_and_nothing_is_predicted(images, unseen, caplog):
    for fitted in (
        quick("ocsvm", false_alarms=None).fit(images),
        quick("ocsvm").fit(images[[0, 1, 0, 1]]),
    ):
        assert fitted.offset_ is None
        with pytest.raises(ValueError, match="This OCSVM has no threshold: calibrate it, or"):
            fitted.predict(images)
        fitted.calibrate(unseen)
        promised = fitted.anomaly_score(images) > fitted.threshold(false_alarms=0.2)
        assert np.array_equal(fitted.predict(images) == -1, promised)
    assert "No threshold is set: it takes 3 different images" in caplog.text


def test_embedding_and_reconstruction_have_a_row_for_each_image(fitted, images):
    if hasattr(fitted, "embed"):
        assert fitted.embed(images).shape[0] == len(images)
    if hasattr(fitted, "reconstruct"):
        assert fitted.reconstruct(images).shape == (len(images), 1, 16, 16)
        residual = fitted.normalized(images) - fitted.reconstruct(images)
        assert np.isfinite(residual).all()


# --- whose chance, whose settings -----------------------------------------------------------------


def test_fits_in_several_threads_are_what_each_is_alone(method, images):
    """They draw at the same time, each from generators of its own."""
    alone = {seed: quick(method, random_state=seed).fit(images) for seed in (0, 1)}
    with ThreadPoolExecutor(4) as pool:
        seeds = [0, 1, 0, 1]
        for seed, fitted in zip(
            seeds, pool.map(lambda s: quick(method, random_state=s).fit(images), seeds), strict=True
        ):
            assert same(fitted, alone[seed])


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "settings",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        deterministic,
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device", "deterministic"],
)
def test_torchs_settings_of_the_caller_change_no_number(method, fitted, images, settings, tmp_path):
    scores = fitted.anomaly_score(images)
    fitted.save(tmp_path / "model")
    with settings():
        again = quick(method).fit(images)
        assert np.array_equal(fitted.anomaly_score(images), scores)
        assert np.array_equal(conocc.load(tmp_path / "model").anomaly_score(images), scores)
    assert same(again, fitted)
    assert np.array_equal(again.anomaly_score(images), scores)


def test_another_default_dtype_of_torch_is_refused(method, fitted, images, tmp_path):
    """It holds for all threads, so that it is not a fit's to change."""
    fitted.save(tmp_path / "model")
    torch.set_default_dtype(torch.float64)
    try:
        for door in (
            lambda: quick(method).fit(images),
            lambda: fitted.anomaly_score(images),
            lambda: conocc.load(tmp_path / "model"),
        ):
            with pytest.raises(ValueError, match="default dtype is torch.float64.*set_default_dty"):
                door()
    finally:
        torch.set_default_dtype(torch.float32)


# --- calibrating --------------------------------------------------------------------------------

PATIENTS = np.repeat([f"Mustermann {i}" for i in range(6)], [1, 1, 2, 3, 4, 5])  # of 16 images


@pytest.fixture
def unseen(images) -> np.ndarray:
    return images[:16] + 0.1 * np.random.default_rng(3).normal(size=(16, 16, 16))


def test_p_values_and_thresholds_come_from_the_calibration_scores_alone(fitted, images, unseen):
    """Each patient's maximum by hand; 0.5^6 = 0.016 of six are enough for a half at 95 %."""
    fitted.calibrate(unseen, groups=PATIENTS)
    scores = fitted.anomaly_score(unseen)
    largest = np.array([scores[name == PATIENTS].max() for name in np.unique(PATIENTS)])
    asked = {"false_alarms": 0.5, "confidence": 0.95, "unit": "patient"}
    # Of six, the two largest lie above the median with 1 - 7/64 = 0.89, the largest with 0.98.
    assert fitted.threshold(**asked) == largest.max()
    at_least = (largest >= fitted.anomaly_score(images)[:, None]).sum(1)
    assert np.array_equal(fitted.p_value(images, unit="patient"), (1 + at_least) / 7)
    assert fitted.threshold(false_alarms=0.5) in scores


def test_calibration_sets_the_threshold_and_changes_nothing_that_was_learned(
    method, images, unseen
):
    """Of 13 patients nothing can be promised, and the threshold is what it was after the fit.

    Once it stayed that of a calibration before: all were called minority, with p-values up to 1.
    """
    fitted = quick(method, false_alarms=0.1).fit(images)
    before, offset = weights(fitted), fitted.offset_
    fitted.calibrate(unseen[:13])
    assert fitted.offset_ == offset
    fitted.calibrate(unseen)
    hashes = {"calibration_digests_", "calibration_patients_"}
    assert {k for k, v in weights(fitted).items() if not np.array_equal(v, before[k])} <= hashes
    assert fitted.offset_ == -fitted.threshold(false_alarms=0.2) != offset
    fitted.calibrate(unseen[:13])
    assert fitted.offset_ == offset


def test_an_image_without_contrast_is_warned_of(images, unseen, caplog):
    """It had a score, often the best, without a word; the commands give it none."""
    fitted = quick("gabor_mahalanobis").fit(images)
    fitted.anomaly_score(images[:3])
    fitted.calibrate(unseen)
    assert not caplog.records
    black = np.concatenate([images[:2], np.zeros_like(images[:1])])
    for scored in (fitted.anomaly_score, fitted.predict, fitted.p_value):
        caplog.clear()
        scored(black)
        assert "1 of 3 images have one value in all pixels" in caplog.text
    caplog.clear()
    fitted.calibrate(np.zeros_like(unseen[:2]))
    assert "2 of 2 images" in caplog.text
    caplog.clear()
    vectors = np.ones((20, 3)) * np.arange(20)[:, None]
    quick("gabor_mahalanobis").fit(vectors).anomaly_score(vectors)
    assert not caplog.records


def test_a_calibration_travels_with_the_model_without_names(fitted, images, unseen, tmp_path):
    fitted.calibrate(unseen, groups=PATIENTS, random_state=5)
    fitted.save(tmp_path / "model")
    again = conocc.load(tmp_path / "model")
    assert again.calibration_ == fitted.calibration_
    assert again.calibration_.seed == 5
    assert np.array_equal(again.p_value(images), fitted.p_value(images))
    assert again.knows(np.concatenate([unseen[:1], images[:1]]), side="calibration").tolist() == [
        True,
        False,
    ]
    asked = ["Mustermann 2", "Muster"]
    assert again.knows_patients(asked, side="calibration").tolist() == [True, False]
    assert b"Mustermann" not in (tmp_path / "model").read_bytes()


def test_without_a_calibration_there_are_no_p_values_and_thresholds(fitted, images, tmp_path):
    fitted.save(tmp_path / "model")
    for detector in (fitted, conocc.load(tmp_path / "model")):
        assert not detector.knows(images, side="calibration").any()
        with pytest.raises(ValueError, match="is not calibrated"):
            detector.p_value(images)
        with pytest.raises(ValueError, match="is not calibrated"):
            detector.threshold(false_alarms=0.1)


def test_a_new_fit_forgets_the_calibration(fitted, images, unseen):
    assert fitted.calibrate(unseen, groups=PATIENTS).fit(images).calibration_ is None
    assert not fitted.knows(unseen, side="calibration").any()
    assert not fitted.knows_patients(PATIENTS, side="calibration").any()


def test_a_fit_that_is_broken_off_leaves_no_half_of_two(method, images, unseen, monkeypatch):
    """It scored by what was learned of new images, and the threshold of the images before."""
    fitted = quick(method).fit(images)
    scores = fitted.anomaly_score(unseen)
    with pytest.raises(ValueError, match="needs at least two images"):
        fitted.fit(np.zeros((1, 24, 24)))
    assert np.array_equal(fitted.anomaly_score(unseen), scores)  # refused, and as it was
    monkeypatch.setattr(type(fitted), "_residual_scale", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(images[:10])
    with pytest.raises(NotFittedError):
        fitted.predict(unseen)


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0), np.int64(3)])
def test_a_calibration_keeps_its_draw(random_state, images, unseen, tmp_path):
    """Without a seed each call drew other images of the patients, and gave other p-values."""
    fitted = quick("ocsvm").fit(images)
    fitted.calibrate(unseen, groups=np.arange(16) // 5, random_state=random_state)
    p = fitted.p_value(unseen).tolist()
    fitted.save(tmp_path / "model")
    assert fitted.p_value(unseen).tolist() == p
    assert conocc.load(tmp_path / "model").p_value(unseen).tolist() == p


def test_what_could_not_be_read_is_not_saved(images, tmp_path):
    fitted = quick("cae").fit(images).set_params(channels=(3, 5))
    with pytest.raises(ValueError, match="Cannot save this CAE as its parameters are now, fit it"):
        fitted.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_a_class_reads_the_folder_of_a_run_too(images, tmp_path):
    fitted = quick("ocsvm").fit(images)
    fitted.save(tmp_path / "model.safetensors")
    assert type(fitted).load(tmp_path).offset_ == fitted.offset_


def test_what_was_trained_on_calibrates_nothing(method, images, unseen):
    fitted = quick(method).fit(images, groups=["a"] * 20)
    with pytest.raises(ValueError, match="2 of the 18 images to calibrate on were trained on"):
        fitted.calibrate(np.concatenate([images[3:5], unseen]))
    with pytest.raises(ValueError, match="1 of the 2 patients to calibrate on were trained on"):
        fitted.calibrate(unseen, groups=["a"] * 3 + ["b"] * 13)
    with pytest.raises(ValueError, match="2 of the 2 images to calibrate on were trained on"):
        fitted.calibrate(images[3:5].astype(np.float32))  # the same values, of another type
    assert fitted.calibration_ is None


# --- interruption -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.8, 1])
def test_an_interrupted_fit_goes_on_from_there(method, share, images, tmp_path, monkeypatch):
    """Ctrl-C in the first step, in the last, and in between, in each of a method's stages.

    What was done of the epoch is done again, and no more.
    """
    unbroken = quick(method)
    if "batch_size" in unbroken.get_params():
        unbroken.set_params(batch_size=8)
    steps = interrupt_at(0, monkeypatch)
    clone(unbroken).fit(images, checkpoint=tmp_path / "unused")
    total = len(steps)
    if total == 0:  # a method without gradients
        assert unbroken.fit(images).history_ == []
        return
    steps = interrupt_at(1 + round(share * (total - 1)), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        clone(unbroken).fit(images, checkpoint=tmp_path / "checkpoint")
    resumed = clone(unbroken).fit(images, checkpoint=tmp_path / "checkpoint")
    an_epoch = 6 if method == "anogan" else 3  # twenty images, eight a batch; two networks
    assert total < len(steps) <= total + an_epoch
    assert same(resumed, unbroken.fit(images))


# --- keeping ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fresh_process():
    """A process that has fitted nothing, and loads what it is told to: one for all methods."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_a_saved_detector_scores_the_same_in_a_fresh_process(
    method, images, tmp_path, kind, fresh_process
):
    X = images if kind == "images" else VECTORS
    fitted = quick(method, false_alarms=0.1).fit(X)
    fitted.save(tmp_path / "model.safetensors", preprocessing={"size": 16})
    np.save(tmp_path / "X.npy", X)
    preprocessing, scores = fresh_process.submit(scores_of_model, tmp_path).result()
    assert preprocessing == {"size": 16}
    assert np.array_equal(scores, fitted.anomaly_score(X))
    again = type(fitted).load(tmp_path / "model.safetensors")
    assert np.array_equal(again.predict(X), fitted.predict(X))
    assert again.get_params() == fitted.get_params() | {"random_state": fitted.seed_}


def test_a_model_fitted_elsewhere_and_loudly_is_quiet_and_runs_here(method, images, tmp_path):
    fitted = quick(method, device="cpu", verbose=1).fit(images)
    fitted.save(tmp_path / "model")
    again = type(fitted).load(tmp_path / "model")
    assert (again.device, again.verbose) == ("auto", 0)


def test_parameters_may_be_numpys(method, images, tmp_path, monkeypatch):
    """As a grid of NumPy's gives them; the model and the checkpoint hold plain values."""
    plain = quick(method, false_alarms=0.25)
    numpys = {
        name: np.asarray(value)[()] if not isinstance(value, tuple) else tuple(np.array(value))
        for name, value in plain.get_params().items()
        if value is not None
    }
    monkeypatch.setattr("conocc.training.SAVE_EVERY_S", 0.0)
    fitted = quick(method).set_params(**numpys).fit(images, checkpoint=tmp_path / "checkpoint")
    fitted.save(tmp_path / "model")
    plain.fit(images).save(tmp_path / "plain")
    assert (tmp_path / "model").read_bytes() == (tmp_path / "plain").read_bytes()


def test_saving_twice_gives_the_same_bytes(fitted, tmp_path):
    fitted.save(tmp_path / "a")
    type(fitted).load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_damaged_model_is_refused_in_one_sentence(fitted, tmp_path):
    """Cut off at any point, with any byte changed, or of another program."""
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 20):
        path.write_bytes(whole[:at])
        with pytest.raises(ValueError, match="Cannot read model"):
            conocc.load(path)
    for at in rng.integers(0, len(whole), 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"Cannot read model|no method") as refused:
            conocc.load(path)
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["offset_", "calibration_", "residual_scale_"])
def test_a_model_without_one_of_its_values_is_refused(images, tmp_path, name):
    conocc.OCSVM().fit(images).save(tmp_path / "model")
    header, tensors = read(tmp_path / "model", "model")
    del header["values"][name]
    write(tmp_path / "less", "model", header, tensors)
    with pytest.raises(ValueError, match=f"Cannot read model .*: it lacks {name}"):
        conocc.load(tmp_path / "less")


def test_a_model_of_another_method_is_refused_by_both_names(images, tmp_path):
    conocc.OCSVM().fit(images).save(tmp_path / "model")
    with pytest.raises(ValueError, match="model' holds a OCSVM, not a CAE"):
        conocc.CAE.load(tmp_path / "model")
    header, tensors = read(tmp_path / "model", "model")
    write(tmp_path / "other", "model", {**header, "class": "Later"}, tensors)
    with pytest.raises(ValueError, match="other': this version of conocc has no method 'Later'"):
        conocc.load(tmp_path / "other")


def test_a_model_of_another_revision_of_its_method_is_named(fitted, tmp_path, monkeypatch):
    """What this version of the method would not have made is not read as if it were."""
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    monkeypatch.setattr(type(fitted), "revision", fitted.revision + 1)
    with pytest.raises(ValueError, match=f"is of revision {fitted.revision - 1} of"):
        type(fitted).load(path)


def test_a_checkpoint_of_another_revision_is_none(fitted, monkeypatch):
    identity = fitted._checkpoint("c").identity
    monkeypatch.setattr(type(fitted), "revision", fitted.revision + 1)
    assert fitted._checkpoint("c").identity != identity


def test_a_model_of_a_newer_format_is_named(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("conocc.io.safetensors.FORMAT", 99)
    fitted.save(tmp_path / "model")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its format is 99"):
        conocc.load(tmp_path / "model")


def test_a_header_cannot_ask_for_more_memory_than_its_file_fills(images, tmp_path):
    """A bottleneck of 10^12 features would take 16 TB; nothing of it is made."""
    path = tmp_path / "model"
    conocc.CAE(epochs=1, bottleneck=2, channels=(2,)).fit(images).save(path)
    header, tensors = read(path, "model")
    header["params"]["bottleneck"] = 10**12
    write(path, "model", header, tensors)
    with pytest.raises(ValueError, match=r"'encoder.out.weight' \(1000000000000, .*holds \(2, "):
        conocc.load(path)


def test_a_model_is_loaded_without_torchs_compiler(images, tmp_path):
    """It takes a second, in each command that uses a model.

    Only AnoGAN's does, whose weights are drawn in a way of its own, and whose scores take longer.
    """
    for name in METHODS.keys() - {"anogan"}:
        quick(name).fit(images).save(tmp_path / name)
    program = (
        "import pathlib, sys, conocc\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).iterdir():\n"
        "    conocc.load(path)\n"
        "    assert not {'sympy', 'torch._dynamo'} & sys.modules.keys(), path\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_model_of_images_without_pixels_is_refused(images, tmp_path):
    path = tmp_path / "model"
    conocc.CAE(epochs=1, bottleneck=2, channels=(2,)).fit(images).save(path)
    header, tensors = read(path, "model")
    header["values"]["input_shape_"][0] = 0
    write(path, "model", header, tensors)
    with pytest.raises(ValueError, match=r"its images are of shape \(0, "):
        conocc.load(path)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no model"):
        conocc.load(tmp_path / "model.safetensors")


def test_training_images_are_known_again(fitted, images):
    assert fitted.knows(images).all()
    assert not fitted.knows(images + 1e-9).any()


def test_patients_are_kept_as_hashes_only(method, images, tmp_path):
    patients = np.repeat(["Erika Mustermann", "Max Mustermann"], 10)
    fitted = quick(method).fit(images, groups=patients)
    assert fitted.training_patients_.shape == (2, 16)
    fitted.save(tmp_path / "model")
    assert b"Mustermann" not in (tmp_path / "model").read_bytes()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.reshape(20, 16, 16, 1), r"X\.transpose\(0, 3, 1, 2\)"),
        (lambda x: np.stack([x, x, x], -1), r"X\.transpose\(0, 3, 1, 2\)"),
        (lambda x: np.stack([x, x], 1), "2 channels"),
        (lambda x: x[:, :15], "at least 16 pixels a side; got 15x16"),
        (lambda x: np.where(np.arange(20)[:, None, None] == 7, np.nan, x), "Row 7 .* nan"),
        (lambda x: np.where(np.arange(20)[:, None, None] == 9, -np.inf, x), "Row 9 .* -inf"),
        (lambda x: x * 1e31, "at most 1e"),
        (lambda x: x[:1], "at least two images"),
        (lambda x: x[:0], "no image"),
        (lambda x: x.astype(complex), "real numbers"),
        (lambda x: np.where(np.arange(20)[:, None, None] == 5, None, x), "real numbers"),
        (lambda x: np.ma.masked_less(x, 0), "masked array, and its mask would be lost"),
        (lambda x: list(np.ma.masked_less(x, 0)), "masked array, and its mask would be lost"),
    ],
)
def test_unusable_images_are_refused_with_the_reason(method, images, change, message):
    with pytest.raises(ValueError, match=message):
        quick(method).fit(change(images))


def test_columns_of_images_and_numbers_held_as_objects_are_taken(images):
    """As a table holds an image in each cell, or a frame of mixed columns its numbers."""
    cells = np.empty(len(images), object)
    for i, image in enumerate(images):
        cells[i] = image
    expected = as_array(images)
    for held in (pd.Series(cells), cells, images.astype(object)):
        assert as_array(held).dtype == expected.dtype
        assert np.array_equal(as_array(held), expected)


def test_minority_images_are_left_out_or_refused(method, images, caplog):
    y = np.where(np.isin(np.arange(20), [3, 8]), -1, 1)
    patients = np.arange(20) // 2
    fitted = quick(method).fit(images, y, groups=patients)
    assert "y marks 2 of 20 images as minority (-1); they are left out." in caplog.text
    assert fitted.knows(images).tolist() == (y == 1).tolist()
    alone = quick(method).fit(images[y == 1], groups=patients[y == 1])
    assert np.array_equal(fitted.anomaly_score(images), alone.anomaly_score(images))
    assert fitted.offset_ == alone.offset_
    with pytest.raises(ValueError, match="y marks 2 of 20 images as minority"):
        quick(method, minority="refuse").fit(images, y)


def test_values_on_a_large_offset_are_told_apart(images):
    large = images + 1e9
    assert quick("ocsvm").fit(large[:10]).knows(large).tolist() == [True] * 10 + [False] * 10


def test_two_labels_that_mark_no_minority_are_said(images, caplog):
    quick("ocsvm").fit(images, np.arange(20) % 2)
    assert "y has the values 0 and 1, of which neither is -1" in caplog.text
    caplog.clear()
    quick("ocsvm").fit(images, np.ones(20))
    assert not caplog.text


def test_scikit_learn_cross_validates_and_searches(images):
    """With y of ±1, as for its own OneClassSVM."""
    X = np.concatenate([images, 1 - images[:10]])
    y = np.repeat([1, -1], [20, 10])
    auc = cross_val_score(quick("ocsvm"), X, y, cv=StratifiedKFold(3), scoring="roc_auc")
    assert np.isfinite(auc).all()
    grid = GridSearchCV(
        quick("ocsvm"), {"nu": [0.2, 0.5]}, cv=StratifiedKFold(3), scoring="roc_auc"
    )
    assert grid.fit(X, y).best_estimator_.knows(X).tolist() == (y == 1).tolist()


def test_images_of_another_size_than_learned_are_refused(fitted):
    with pytest.raises(ValueError, match=r"shape \(1, 18, 18\); .* was fitted on \(1, 16, 16\)"):
        fitted.anomaly_score(np.zeros((2, 18, 18)))


def test_an_unfitted_detector_says_so(method, images):
    with pytest.raises(NotFittedError):
        quick(method).anomaly_score(images)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"false_alarms": 0.9}, "'false_alarms' parameter of .* Got 0.9"),
        ({"minority": "keep"}, "'minority' parameter of .* Got 'keep'"),
        ({"normalize": "zsore"}, "'normalize' parameter of .* Got 'zsore'"),
        ({"device": "abacus"}, "Cannot use device 'abacus': choose 'auto', 'cpu'"),
        ({"device": "mps"}, "Cannot use device 'mps': choose 'auto', 'cpu'.* lack float64"),
        ({"device": "cuda:99"}, "Cannot use device 'cuda:99': "),
    ],
)
def test_parameters_are_validated_in_fit_and_before(method, images, params, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quick(method, **params).check_params()
    with pytest.raises(ValueError, match=message):
        quick(method, **params).fit(images, checkpoint=tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epochs": 0}, "'epochs' parameter of CAE .* Got 0"),
        ({"channels": ()}, "'channels' parameter of CAE must be one or more widths .* Got \\(\\)"),
        ({"channels": (16, 0)}, "'channels' parameter of CAE .* Got \\(16, 0\\)"),
        ({"channels": ("16",)}, "'channels' parameter of CAE .* Got \\('16',\\)"),
    ],
)
def test_parameters_of_training_are_validated_before_anything_is_written(
    images, params, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        conocc.CAE(**params).fit(images, checkpoint=tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())
