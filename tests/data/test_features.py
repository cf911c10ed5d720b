"""Features of any program are cohorts: a row an image, in a table or an archive."""

import numpy as np
import pandas as pd
import pytest

from conocc.data.columns import TableOptions
from conocc.data.load import load_cohort
from test_cli import call

RNG = np.random.default_rng(0)
N = 40
VALUES = RNG.normal(size=(N, 5)) + 4 * (np.arange(N) >= 30)[:, None]
LABELS = np.repeat(["plain", "odd"], [30, 10])


@pytest.fixture
def table(tmp_path):
    """As PyRadiomics writes it, with a column of words, and the features in any order."""
    columns = {f"original_f{i}": VALUES[:, i] for i in (3, 0, 2, 1, 4)}
    frame = pd.DataFrame({"Path": [f"scan-{i}.nii" for i in range(N)], "label": LABELS, **columns})
    frame.insert(3, "diagnostics_version", "v3.0")
    frame["patient"] = [f"p{i // 2}" for i in range(N)]
    path = tmp_path / "chest-features.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_table_and_an_archive_of_the_same_features_are_one_cohort(table, tmp_path):
    cohort = load_cohort(table, majority="plain")
    patients = np.array([f"p{i // 2}" for i in range(N)])
    archive = tmp_path / "features.npz"
    np.savez(archive, features=VALUES, labels=LABELS, patient=patients)
    other = load_cohort(archive, majority="plain")
    assert cohort.images.shape == (N, 5)
    assert {*cohort.path} == {f"scan-{i}.nii" for i in range(N)}
    assert any("diagnostics_version" in note for note in cohort.notes)
    assert not cohort.leaks()
    rows = [int(path[5:-4]) for path in cohort.path]
    assert np.array_equal(cohort.images, VALUES[rows].astype(np.float32))
    assert np.array_equal(other.images, cohort.images)
    for column in ("patient", "split", "label", "minority"):
        assert np.array_equal(getattr(other, column), getattr(cohort, column)), column


@pytest.mark.parametrize("column", ["Outcome", "subject_no", "Diagnosis (1=odd)", "fold set"])
def test_a_number_that_says_the_class_or_who_it_is_is_no_feature(table, column):
    """A detector that is given the class finds it."""
    frame = pd.read_csv(table).assign(split=np.where(np.arange(N) % 2, "train", "test"))
    frame[column] = (LABELS == "odd").astype(int)
    frame.to_csv(table, index=False)
    if column == "fold set":
        assert "fold set" in load_cohort(table, majority="plain").preprocessing.features
        return
    with pytest.raises(ValueError, match="would be a feature. Drop it, or rename it"):
        load_cohort(table, majority="plain")


def test_row_numbers_of_pandas_and_r_are_no_feature(table):
    frame = pd.read_csv(table)
    frame.insert(0, "Unnamed: 0", range(N))
    frame.insert(1, "...1", range(N))
    frame.to_csv(table)
    cohort = load_cohort(table, majority="plain")
    assert cohort.images.shape == (N, 5)
    names = ", ".join(f"original_f{i}" for i in range(5))
    assert f"5 features an image: {names}." in cohort.notes


def test_of_many_features_ten_are_named(tmp_path):
    frame = pd.DataFrame(RNG.normal(size=(20, 12)), columns=[f"f{i:02d}" for i in range(12)])
    frame.to_csv(tmp_path / "features.csv", index=False)
    (note,) = [one for one in load_cohort(tmp_path / "features.csv").notes if "an image" in one]
    assert note.startswith("12 features an image: f00, f01, ")
    assert note.endswith("f08, f09 and 2 more.")


def test_without_labels_all_are_one_class(table):
    frame = pd.read_csv(table).drop(columns="label")
    frame.to_csv(table, index=False)
    assert not load_cohort(table).minority.any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"original_f1": "many"},
            "line 4: the feature 'original_f1' is 'many', and no finite numb",
        ),
        (
            {"original_f1": "nan"},
            "line 4: the feature 'original_f1' is 'nan', and no finite number",
        ),
        ({"original_f1": ""}, "line 4: the feature 'original_f1' is '', and no finite number"),
        (
            {"original_f1": "0,5"},
            "line 4: the feature 'original_f1' is '0,5', and no finite number with a decimal point",
        ),
        ({"label": ""}, "line 4: the label or the patient is empty"),
        ({"patient": "None"}, "line 4: the label or the patient is empty"),
    ],
)
def test_a_row_that_lacks_something_is_named(table, change, sentence):
    whole = pd.read_csv(table, dtype=str)
    for row in (2, 0, len(whole) - 1):
        frame = whole.copy()
        frame.loc[row, [*change]] = [*change.values()]
        frame.to_csv(table, index=False)
        with pytest.raises(ValueError, match=sentence.replace("line 4", f"line {row + 2}")):
            load_cohort(table, majority="plain")


def test_a_column_without_a_number_is_no_feature_and_named(table):
    """Also one of blanks; decimal commas are told to be so."""
    frame = pd.read_csv(table, dtype=str)
    frame.assign(empty="", missing="n/a").to_csv(table, index=False)
    cohort = load_cohort(table, majority="plain")
    assert cohort.images.shape == (N, 5)
    (note,) = [note for note in cohort.notes if "no numbers" in note]
    assert note.endswith("not used: diagnostics_version, empty, missing.")
    (frame.drop(columns="patient").replace(r"(\d)\.", r"\1,", regex=True)).to_csv(
        table, index=False, sep=";"
    )
    with pytest.raises(ValueError, match="line 2: the feature 'original_f0' is '.*,.*', and no f"):
        load_cohort(table, majority="plain")


def test_what_is_no_table_of_features_is_refused(table, tmp_path):
    frame = pd.read_csv(table)
    frame.rename(columns={"label": "diagnosis"}).to_csv(table, index=False)
    with pytest.raises(ValueError, match="'diagnosis', which reads as if it were 'label'"):
        load_cohort(table)
    frame[["Path", "label"]].to_csv(table, index=False)
    with pytest.raises(ValueError, match="has no column of numbers"):
        load_cohort(table)
    with pytest.raises(ValueError, match="a table of features, where --root says nothing"):
        load_cohort(table, table=TableOptions(root=str(tmp_path)))
    np.savez(tmp_path / "features.npz", features=VALUES[:, 0])
    with pytest.raises(ValueError, match="must hold numbers .n, d.. It holds float64, .40,."):
        load_cohort(tmp_path / "features.npz")
    values = VALUES.copy()
    values[3, 2] = np.inf
    np.savez(tmp_path / "features.npz", features=values)
    with pytest.raises(ValueError, match="a feature of it is no finite number"):
        load_cohort(tmp_path / "features.npz")


def test_commands_take_features_as_they_take_images(table, tmp_path, monkeypatch):
    """Fitted, evaluated and scored, by the names of the table; no picture is drawn of them."""
    monkeypatch.chdir(tmp_path)
    fit = ("fit", table, "--majority", "plain", "--method", "cae", "--epochs", "2")
    assert call(*fit, "--out", "run", "--calibrate", "0.3", "-q")[0] == 0
    code, said = call("evaluate", "run", table, "-q")
    assert code == 0, said
    assert call("report", "run")[0] == 0
    new = tmp_path / "new-features.csv"
    frame = pd.read_csv(table).drop(columns=["label", "patient"])
    frame.assign(subject_no=7, diagnosis="", split="?").to_csv(new, index=False)
    assert call("score", "run", new, "-q")[0] == 0  # whose class and patient are of no concern
    scored = pd.read_csv(tmp_path / "scores.csv")
    assert scored.path.tolist() == [f"scan-{i}.nii" for i in range(N)]
    tested = pd.read_csv(tmp_path / "run" / "scores.csv").set_index("path").anomaly_score
    again = scored.set_index("path").anomaly_score[tested.index]
    np.testing.assert_allclose(again, tested, rtol=1e-6)
    assert call("explain", "run", new, "--out", "explained")[0] == 1
    assert call("review", "run", new, "--out", "review")[0] == 1
    assert call("data", "inspect", table, "--majority", "plain", "--montage", "m.png")[0] == 1
    new = tmp_path / "fewer-features.csv"
    frame.drop(columns="original_f4").to_csv(new, index=False)
    code, said = call("score", "run", new, "--out", "fewer.csv", "-q")
    assert (code, "lacks 1 feature ('original_f4'), and has besides none" in said) == (1, True)
    np.savez(tmp_path / "fewer.npz", features=VALUES[:, :4])  # whose columns have no names
    code, said = call("score", "run", tmp_path / "fewer.npz", "--out", "fewer.csv", "-q")
    assert (code, "has 4 features, where 5 features are expected" in said) == (3, True)


def test_features_are_matched_by_their_names(table, tmp_path, monkeypatch):
    """As many features of other names had been scored, each in the place of another."""
    monkeypatch.chdir(tmp_path)
    fit = ("fit", table, "--majority", "plain", "--method", "ocsvm", "--out", "run")
    assert call(*fit, "--calibrate", "0.3", "-q")[0] == 0
    frame = pd.read_csv(table)
    turned, other = tmp_path / "turned-features.csv", tmp_path / "other-features.csv"
    frame[[*frame.columns[::-1]]].to_csv(turned, index=False)
    frame.rename(columns={"original_f1": "original_f9"}).to_csv(other, index=False)
    for name in (table, turned):
        assert call("score", "run", name, "--out", f"of-{name.stem}.csv", "-q")[0] == 0
    scores = [pd.read_csv(f"of-{name.stem}.csv").anomaly_score for name in (table, turned)]
    assert scores[0].equals(scores[1])
    for command in (("score", "run", other, "--out", "x.csv"), ("evaluate", "run", other)):
        code, said = call(*command, "-q")
        assert code == 1
        assert "lacks 1 feature ('original_f1'), and has besides 1 feature ('original_f9')" in said
    assert not (tmp_path / "x.csv").exists()
