"""What DICOM tells of a patient is nowhere in what `conocc` writes and says."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from conocc.data.image_io.dicom_person import person_of
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.data.pseudonyms import NAMES, hide, key_fingerprint, pseudonym, reveal
from conocc.data.unlabelled import Block, deidentified_paths, list_images, read_block
from made_cohorts import make_folder
from made_dicom import STORAGE, dicom, element
from reused_workers import stop_workers
from test_cli import SOME_FAILED, call

RNG = np.random.default_rng(0)
# One letter or digit apart, so that no chance finds it.
MARKER = "ZQXMARK"


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("CONOCC_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


# The key


def test_a_patient_has_one_pseudonym_that_says_nothing():
    assert pseudonym("Smith") == pseudonym("Smith") != pseudonym("Smyth")
    assert len(pseudonym("Smith")) == 17
    assert pseudonym("Smith")[0] == "p"


def test_the_key_is_the_users_own_and_private(config, monkeypatch, tmp_path):
    here = pseudonym("Smith")
    (key,) = config.iterdir()
    if os.name == "posix":
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    monkeypatch.setenv("CONOCC_CONFIG", str(tmp_path / "another"))
    assert pseudonym("Smith") != here


def test_a_cohort_tells_with_which_key_its_patients_are_hashed(tmp_path, monkeypatch):
    """Nothing where they are not known, or called as they are."""
    for i, name in enumerate(("Smith", "Smyth")):
        image = RNG.integers(0, 99, (16, 16), dtype=np.uint8)
        file = dicom(image, element(0x00100020, "LO", name))
        make_folder(tmp_path / "png" / "lung", f"sub-{i}.png", f"{i}.png")
        (tmp_path / "dicom" / "lung").mkdir(parents=True, exist_ok=True)
        (tmp_path / "dicom" / "lung" / f"{i}.dcm").write_bytes(file)

    def key(kind, **options):
        where = tmp_path / kind
        return load_cohort(where, majority="lung", test_size=0, cache=False, **options).key

    here = key("dicom")
    assert here == key_fingerprint() == key("png", patient_regex=r"(\d)", pseudonyms=True)
    assert (key("png"), key("png", patient_regex=r"(\d)")) == ("", "")
    monkeypatch.setenv("CONOCC_CONFIG", str(tmp_path / "another"))
    assert key("dicom") not in ("", here)


def test_threads_that_need_the_first_key_make_one(config):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(pseudonym, ["Smith"] * 40))) == 1
    assert [path.name for path in config.iterdir()] == ["key"]


def test_a_damaged_key_is_an_error_and_not_made_anew(config):
    config.mkdir()
    (config / "key").write_text("short")
    with pytest.raises(ValueError, match="is damaged: it is not 64 hex digits"):
        pseudonym("Smith")
    assert (config / "key").read_text() == "short"


def test_a_folder_that_takes_no_key_is_an_error(config):
    config.write_text("a file")
    with pytest.raises(OSError, match="Cannot read or make the key of pseudonyms"):
        pseudonym("Smith")


# Paths


def test_only_the_names_that_tell_are_hidden():
    hidden = hide("/data/smith_john/CT/1.dcm", lambda name: "smith" in name)
    assert hidden == f"/data/{pseudonym('smith_john')}/CT/1.dcm"
    assert hide("a/smith.DCM", lambda name: "smith" in name) == f"a/{pseudonym('smith.DCM')}.DCM"
    assert hide("a/b.dcm", lambda name: False) == "a/b.dcm"


def test_what_a_path_cuts_in_two_is_hidden_whole():
    assert "1950" not in hide("1950/01/02.dcm", lambda name: name.startswith("19500102"))


def test_all_names_can_be_hidden():
    assert hide("good/x.png") == f"{pseudonym('good')}/{pseudonym('x.png')}.png"
    assert hide("../x") == f"../{pseudonym('x')}"


# The way back


def test_what_was_hidden_is_revealed_to_the_user_alone(config, tmp_path):
    """Whole names, suffixes and slices; each is noted once, readable by nobody else."""
    for _ in range(2):
        hidden = hide("a/Smith, John.dcm[3]", lambda name: "Smith" in name)
    assert reveal(f"Cannot read '{hidden}': cut.") == "Cannot read 'a/Smith, John.dcm[3]': cut."
    assert reveal("p0123456789abcdef/x") == "p0123456789abcdef/x"
    names = config / "names.jsonl"
    assert len(names.read_text().splitlines()) == 1
    if os.name == "posix":
        assert stat.S_IMODE(names.stat().st_mode) == 0o600
    table = tmp_path / "scores.csv"
    table.write_text(f"path,anomaly_score\n{hidden},1.5\n")
    out = tmp_path / "revealed.csv"
    code, said = call("data", "reveal", table, "--out", out)
    assert code == 0, said
    assert out.read_text() == 'path,anomaly_score\n"a/Smith, John.dcm[3]",1.5\n'
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert call("data", "reveal", table, "--out", out)[0] == 1


def test_names_that_many_processes_note_are_all_there(config, tmp_path):
    code = (
        "import sys; from conocc.data.pseudonyms import hide\n"
        "for i in range(40): hide(f'{sys.argv[1]}-{i}')"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(k)]) for k in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    lines = (config / "names.jsonl").read_text().splitlines()
    assert {json.loads(line)[1] for line in lines} == {
        f"{k}-{i}" for k in range(3) for i in range(40)
    }


@pytest.mark.parametrize(
    ("patient", "name", "hidden", "shown"),
    [
        ("1", "LUNG^TEST", [], ["1.dcm", "lung", "IM-0001", "test"]),
        ("CT01", "Anna^Lee", ["CT01.dcm", "anna", "LeeAnna_2"], ["CT011.dcm", "susanna", "sleep"]),
        ("ABCD-0001", "", ["ABCD-0001", "xABCD0001y"], ["ABCD", "0001.dcm"]),
    ],
)
def test_names_are_hidden_only_where_they_are_repeated_whole(patient, name, hidden, shown):
    person = person_of(dicom(np.zeros((4, 4), np.uint8), about(patient, name)))
    assert [person.identifies(one) for one in hidden + shown] == [True] * len(hidden) + [
        False
    ] * len(shown)


# Cohorts


def about(patient: str, name: str = "Smith^John") -> bytes:
    return element(0x00100010, "PN", name) + element(0x00100020, "LO", patient)


def write(path, *more: bytes, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = RNG.integers(0, 4096, (20, 24)).astype(np.uint16)
    path.write_bytes(dicom(image, *more, **options))


def make_cohort(folder, *more: bytes):
    """Two classes, six patients, two images each; files are named by no suffix that is known."""
    for i in range(12):
        label = "lung" if i < 8 else "nodule"
        write(folder / label / f"IM{i:04}", about(f"ID-{i // 2}"), *more)
    return folder


def load(folder, **options):
    return load_cohort(
        folder, Preprocessing(size=16), majority="lung", cache=False, n_jobs=2, **options
    )


def test_patients_of_dicom_are_known_by_pseudonyms(tmp_path):
    cohort = load(make_cohort(tmp_path / "set"))
    assert cohort.patients_known
    assert set(cohort.patient) == {pseudonym(f"ID-{i}") for i in range(6)}
    assert "Patients are pseudonyms of DICOM's PatientID." in cohort.notes
    assert not cohort.leaks()
    assert set(cohort.path) == {f"{'lung' if i < 8 else 'nodule'}/IM{i:04}" for i in range(12)}


def test_ids_that_may_be_one_are_counted_and_not_named(tmp_path):
    folder = make_cohort(tmp_path / "set")
    write(folder / "lung" / "b.dcm", about("id-00"))  # as ID-0
    (note,) = (one for one in load(folder).notes if "PatientID" in one)
    assert "1 PatientID of 7 differ from another in capitals or zeros alone" in note
    assert "-0" not in note


def test_one_id_of_two_issuers_is_two_patients(tmp_path):
    """If every image says who issued it; if not, the ID alone counts, as no one may leak."""
    folder = make_cohort(tmp_path / "set", element(0x00100021, "LO", "Clinic A"))
    write(folder / "lung" / "b.dcm", about("ID-0") + element(0x00100021, "LO", "Clinic B"))
    cohort = load(folder)
    assert len(set(cohort.patient)) == 7
    assert "Patients are pseudonyms of DICOM's PatientID and of its issuer." in cohort.notes
    write(folder / "lung" / "c.dcm", about("ID-0"))
    assert set(load(folder).patient) == {pseudonym(f"ID-{i}") for i in range(6)}


def test_one_file_without_a_patient_leaves_them_unknown(tmp_path):
    folder = make_cohort(tmp_path / "set")
    write(folder / "lung" / "extra.dcm", about(""))
    assert not load(folder).patients_known


def test_a_table_of_contents_is_no_image(tmp_path):
    folder = make_cohort(tmp_path / "set")
    write(folder / "DICOMDIR", sop="1.2.840.10008.1.3.10")
    assert len(load(folder)) == 12


def test_paths_that_repeat_the_patient_are_hidden_and_stay_apart(tmp_path):
    for i in range(6):
        write(tmp_path / "set" / "lung" / "Smith_John" / f"ID-{i}.dcm", about(f"ID-{i}"))
    paths = load(tmp_path / "set").path.tolist()
    assert len(set(paths)) == 6
    for path in paths:
        label, folder, name = path.split("/")
        assert (label, folder) == ("lung", pseudonym("Smith_John"))
        assert name.endswith(".dcm")
        assert "ID" not in name


def test_patients_taken_from_paths_are_hidden_where_dicom_tells_them(tmp_path):
    """For all images of a patient alike: the second file does not say who is on it."""
    for i, told in enumerate(("Smith", "", "Jones", "Jones")):
        patient = ("Smith", "Smith", "Jones", "Jones")[i]
        write(tmp_path / "set" / "lung" / f"{patient}_{i}.dcm", about("", told))
    cohort = load(tmp_path / "set", patient_regex=r"lung/(\w+)_")
    assert set(cohort.patient) == {pseudonym("Smith"), pseudonym("Jones")}


def test_a_class_called_by_a_patient_is_refused_without_the_name(tmp_path):
    for i in range(6):
        write(tmp_path / "set" / "John Smith" / f"{i}.dcm", about("Q-17", "John^Smith"))
    with pytest.raises(ValueError, match="The name of a class repeats") as caught:
        load_cohort(tmp_path / "set", Preprocessing(size=16), majority="John Smith", cache=False)
    assert "Smith" not in str(caught.value)


def test_names_that_users_gave_are_kept_unless_they_ask(tmp_path):
    make_folder(tmp_path / "set", *(f"lung/anna_{i}.png" for i in range(6)))
    (tmp_path / "set" / "patients.csv").write_text(
        "file,patient\n" + "".join(f"lung/anna_{i}.png,Anna {i // 2}\n" for i in range(6))
    )
    cohort = load(tmp_path / "set")
    assert set(cohort.patient) == {"Anna 0", "Anna 1", "Anna 2"}
    hidden = load(tmp_path / "set", pseudonyms=True)
    assert set(hidden.patient) == {pseudonym(f"Anna {i}") for i in range(3)}
    assert set(hidden.label) == {"lung"}
    assert not any("anna" in path for path in hidden.path)
    np.testing.assert_array_equal(hidden.split, cohort.split)


# Scoring


def test_paths_of_scores_join_with_those_of_cohorts(tmp_path, monkeypatch):
    """They are what was typed, then the path in it; a table's are its own; hidden or not."""
    monkeypatch.chdir(tmp_path)
    make_cohort(tmp_path / "set", about("ID-1"))
    for i in range(6):
        write(tmp_path / "set" / "lung" / "Smith_John" / f"{i}.dcm", about(f"ID-{i}"))
    files = sorted(one.relative_to(tmp_path) for one in (tmp_path / "set").rglob("*.dcm"))
    rows = [f"{one.as_posix()},lung,{i}" for i, one in enumerate(files)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,patient", *rows]) + "\n")
    reading = Preprocessing(size=16)
    make_folder(tmp_path / "plain", *(f"lung/{i}.png" for i in range(5)), "b/1.png")
    images = np.random.default_rng(0).integers(0, 99, (6, 20, 20)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=["lung"] * 5 + ["b"])
    typed_of = {"plain": "plain/", "own.npz": "own.npz/", "set": "set/", "set.csv": ""}
    for where, typed in typed_of.items():
        scored = list(deidentified_paths(list_images([where], reading), 16))
        own = load(where).path.tolist()
        assert sorted(scored) == sorted(f"{typed}{path}" for path in own)
        if where.startswith("set"):
            assert any(f"/{pseudonym('Smith_John')}/" in path for path in scored)


def test_paths_to_be_scored_are_hidden_too_and_errors(tmp_path):
    folder = tmp_path / "Smith John"
    write(folder / "fine.dcm", about("Q-17"))
    write(folder / "rt.dcm", about("Q-17"), rows=None)
    whole = (folder / "fine.dcm").read_bytes()
    (folder / "short.dcm").write_bytes(whole[:-400])
    block = to_be_scored(folder, Preprocessing(size=16))
    hidden = hide("Smith John", None)
    assert [path.split("/")[-2:] for path in block.path] == [[hidden, "fine.dcm"]]
    assert len(block.errors) == 2
    for path, reason in block.errors:
        assert "Smith" not in path + reason
        assert hidden in path
        assert hidden in reason
    for path in deidentified_paths(list_images([folder], Preprocessing(size=16)), 16):
        assert "Smith" not in path
        assert hidden in path


def to_be_scored(folder, preprocessing: Preprocessing) -> Block:
    (part,) = list_images([folder], preprocessing)
    return read_block(preprocessing, (1, 16, 16), part.items(16))


# The marker


def every_text_tag(*but: int) -> bytes:
    """The marker in each tag of the standard that can hold text, but those that make an image."""
    from pydicom.datadict import DicomDictionary

    needed = {0x00080016, 0x00280004, 0x00280008, 0x00281052, 0x00281053, *but}
    texts = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC"}
    texts |= {"UI", "UR", "UT"}
    return b"".join(
        element(tag, kind, f"{MARKER}{tag:08X}")
        for tag, (kind, *_) in sorted(DicomDictionary.items())
        if kind in texts and 0x0008_0000 <= tag < 0x7FE0_0000 and tag not in needed
    )


def assert_no_marker(where: str, content: bytes) -> None:
    assert MARKER.encode() not in content.upper(), where


def test_a_marker_in_every_tag_is_found_in_no_message_and_no_file(tmp_path, caplog, capfd):
    """Paths repeat it; files are whole, cut, of no image, and with numbers that are none."""
    caplog.set_level(logging.DEBUG)
    told = every_text_tag()
    assert told.count(MARKER.encode()) > 1000
    source = tmp_path / "source"
    for i in range(10):
        label = "lung" if i < 7 else "nodule"
        name = f"{MARKER}00100010"
        write(source / label / name / f"{i}-{MARKER}00080018.dcm", told)
    cache = tmp_path / "cache"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for voi in ("none", "40,400"):
            cohort = load_cohort(
                source, Preprocessing(size=16, voi=voi), majority="lung", test_size=0, cache=cache
            )
        said = [cohort.table().to_csv(), repr(cohort), *cohort.notes, *cohort.leaks().sentences()]
        bad = [
            {"sop": STORAGE + "66.4"},
            {"sop": f"{MARKER}1"},
            {"photometric": f"{MARKER}2"},
            {"syntax": f"1.2.{MARKER}"},
            {"rows": f"{MARKER}3"},
            {"bits": 12},
        ]
        for i, options in enumerate(bad):
            write(source / "bad" / f"{MARKER}00100020-{i}.dcm", told, **options)
        for i, tag in enumerate((0x00280008, 0x00281053, 0x00281052)):
            wrong = element(tag, "DS", f"{MARKER}4")
            write(source / "bad" / f"{MARKER}00100020-w{i}.dcm", told, wrong)
        whole = next(source.rglob("*.dcm")).read_bytes()
        # A file that is cut before it says who is on it cannot hide that.
        said_who = whole.index(f"{MARKER}00100020".encode()) + 100
        for i, cut in enumerate(range(said_who, len(whole) - 10, len(whole) // 20)):
            (source / "bad" / f"{MARKER}00100010-c{i}.dcm").write_bytes(whole[:cut])
        for voi in ("none", "file"):
            block = to_be_scored(source, Preprocessing(size=16, voi=voi))
            said += [*block.path, json.dumps(block.errors)]
        assert len(block.errors) >= 10 + len(bad)
        with pytest.raises(ValueError, match="Cannot read") as caught:
            load_cohort(
                source,
                Preprocessing(size=16, voi="file"),
                majority="lung",
                test_size=0,
                cache=cache,
            )
    told_of = caught.value
    while told_of is not None:
        said.append(str(told_of))
        told_of = told_of.__cause__ or told_of.__context__
    said += [str(one.message) for one in warned]
    printed = capfd.readouterr()
    for text in (*said, caplog.text, printed.out, printed.err):
        assert_no_marker(text[:200], text.encode())
    assert MARKER in (tmp_path / "config" / NAMES).read_text()  # where alone it may be
    for path in (*cache.rglob("*"), tmp_path / "config" / "key"):
        assert_no_marker(path.name, path.name.encode())
        if path.is_file():
            assert_no_marker(path.name, path.read_bytes())


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file; those of an archive's members as they were before they were packed."""
    yield str(path), path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                # Text in NumPy's arrays has four bytes a letter.
                yield f"{path}: {name}", archive.read(name).replace(b"\0", b"")


def test_a_marker_in_every_tag_is_in_nothing_that_any_command_writes(tmp_path, monkeypatch, caplog):
    """Images of ten patients whose names, and those of their folders, are the marker's."""
    caplog.set_level(logging.DEBUG)
    stop_workers()  # of other tests, whose pseudonyms have another key
    told = every_text_tag(0x00100020)
    source, new, work = tmp_path / "source", tmp_path / "new", tmp_path / "work"
    work.mkdir()
    boxes = ["path,x,y,width,height"]
    for i in range(15):
        patient = element(0x00100020, "LO", f"{MARKER}00100020 {i}")
        label = "lung" if i < 10 else "nodule"
        path = f"{label}/{MARKER}00100010/{i}-{MARKER}00080018.dcm"
        write(source / path, told, patient)
        boxes.append(f"{path},2,2,16,16")
    for i in range(4):
        patient = element(0x00100020, "LO", f"{MARKER}00100020 new {i}")
        write(new / "lung" / f"{MARKER}00100010-{i}.dcm", told, patient)
    cut = next(new.rglob("*.dcm")).read_bytes()[:-200]
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / f"{MARKER}00100010.dcm").write_bytes(cut)
    (tmp_path / "boxes.csv").write_text("\n".join(boxes) + "\n")
    monkeypatch.chdir(work)
    cohort, quick = (source, "--majority", "lung", "--size", 16), ("--epochs", 1)
    study = ("--methods", "ocsvm")
    some_failed = {"score", "explain"}
    has_highdicom = importlib.util.find_spec("highdicom") is not None
    objects = ("--dicom-out", tmp_path / "objects") if has_highdicom else ()
    commands = [
        ("data", "inspect", *cohort),
        ("data", "patches", source, "--boxes", tmp_path / "boxes.csv", "--out", "patches"),
        ("fit", *cohort, *quick, "--method", "cae", "--calibrate", 0.4, "--out", "run"),
        ("evaluate", "run", source),
        ("calibrate", "run", new, "--majority", "lung"),
        ("evaluate", "run", source, "--false-alarms", 0.5, "--confidence", 0.5),
        ("score", "run", new, tmp_path / "cut", "--out", "scores.csv", *objects),
        ("explain", "run", new, tmp_path / "cut", "--out", "explained"),
        ("embed", "run", source, "--out", "map.svg"),
        ("benchmark", *cohort, *study, "--runs", 1, "--out", "benchmark"),
        ("crossval", *cohort, *study, "--folds", 2, "--out", "crossval"),
        ("sweep", *cohort, *quick, "--method", "cae", "--lr", "0.001,0.01", "--out", "sweep"),
        *(("report", folder) for folder in ("run", "benchmark", "crossval", "sweep")),
    ]
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        commands.append(("export", "run", "--out", "run.onnx", "--check", new))
    for command in commands:
        code, said = call(*command)
        assert code == (SOME_FAILED if command[0] in some_failed else 0), (command, said)
        assert_no_marker(command[0], said.encode())
    stop_workers()  # whose pseudonyms have the key of this test
    assert_no_marker("log", caplog.text.encode())
    for path in (tmp_path / "objects").glob("*"):  # which name the patients, as was asked for
        assert_no_marker("a name", path.name.encode())
        assert f"{MARKER}00100020 new".encode() in path.read_bytes()
    assert len([*(tmp_path / "objects").glob("*")]) == 12 * has_highdicom
    written = [path for path in work.rglob("*") if path.is_file()]
    assert len(written) > 80
    for path in (*written, tmp_path / "config" / "key"):
        assert_no_marker("a name", str(path.relative_to(tmp_path)).encode())
        for where, content in contents(path):
            assert_no_marker(where, content)
