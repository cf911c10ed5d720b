"""Reports and heat maps as DICOM objects: read back by others' readers, and never made twice."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import quick
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import list_images, read_block
from conocc.experiments.inference import score_files
from conocc.experiments.run import load_model
from conocc.thresholds.rule import Rule
from made_dicom import STORAGE, dicom, element, sequence
from test_cli import call

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
pydicom = pytest.importorskip("pydicom")

from conocc.deploy.dicom_out import export_files  # noqa: E402

CT, ENHANCED = STORAGE + "2", STORAGE + "2.1"
STUDY, FRAME_OF_REFERENCE = "1.2.3", "1.2.3.8"
NAME = "Müller^Jürgen"
KINDS = ("report", "picture", "map")


def image(seed: int, n: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n * 20, 24), dtype=np.uint8)


def whose(study: str = STUDY, sop: str = "1.2.3.4") -> list[bytes]:
    return [
        element(0x00080005, "CS", "ISO_IR 100"),
        element(0x00100010, "PN", NAME),
        element(0x00100020, "LO", "0815"),
        element(0x0020000D, "UI", study),
        element(0x0020000E, "UI", "1.2.3.9"),
        element(0x00080018, "UI", sop),
    ]


def placed() -> list[bytes]:
    """A slice that lies askew in the patient."""
    return [
        element(0x00200052, "UI", FRAME_OF_REFERENCE),
        element(0x00200032, "DS", "10\\20\\30"),
        element(0x00200037, "DS", "0\\1\\0\\0\\0\\-1"),
        element(0x00280030, "DS", "2\\0.5"),
    ]


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Two slices of one study, one of them in the patient, one of another; a PNG."""
    folder = tmp_path_factory.mktemp("batch") / "new"
    folder.mkdir()
    for i, (study, more) in enumerate([(STUDY, placed()), (STUDY, []), ("1.2.4", [])]):
        file = dicom(image(i), *whose(study, f"1.2.3.{40 + i}"), *more, sop=CT)
        (folder / f"{i}.dcm").write_bytes(file)
    return folder


@pytest.fixture(scope="module")
def made(run, batch, tmp_path_factory):
    """The objects, by their kinds, and what was said."""
    out = tmp_path_factory.mktemp("out")
    code, said = call("score", run, batch, "--out", out / "scores.csv", "--dicom-out", out / "to")
    assert code == 0, said
    return out / "to", said


def objects(folder, kind: str) -> list:
    return [pydicom.dcmread(path) for path in sorted(folder.glob(f"{kind}-*.dcm"))]


def export(run, where, out, **how) -> list[str]:
    parts = score_files(run, [where], out.with_suffix(".csv")).parts
    return export_files(run, parts, out, **how)


def test_each_study_has_a_report_of_what_the_table_says(made, run):
    folder, said = made
    assert "2 reports on 3 images, 8 new DICOM objects" in said
    assert "They name the patients" in said
    with (folder.parent / "scores.csv").open() as file:
        rows = {row["path"][-5]: row for row in csv.DictReader(file)}
    found = {}
    for path in folder.glob("report-*.dcm"):
        report = hd.sr.srread(path)
        assert (str(report.PatientName), report.PatientID) == (NAME, "0815")
        assert "Jürgen".encode() in path.read_bytes()
        for group in report.content.get_image_measurement_groups():
            values = {m.name.meaning: m.value for m in group.get_measurements()}
            (flag,) = [q.value.meaning for q in group.get_qualitative_evaluations()]
            sop = group.source_images[0].referenced_sop_instance_uid
            found[sop[-1]] = values["Anomaly score"], values["P-value"], flag
            texts = " ".join(str(item.get("TextValue", "")) for item in group[0].ContentSequence)
            assert "of new majority images are flagged" in texts
            assert load_model(run).__class__.__name__ in texts
        assert {study for study, _ in report.get_evidence_series()} == {report.StudyInstanceUID}
    assert set(found) == set(rows) == {"0", "1", "2"}
    for name, row in rows.items():
        score, p_value, flag = found[name]
        assert score == pytest.approx(float(row["anomaly_score"]), rel=1e-9)
        assert p_value == pytest.approx(float(row["p_value"]), rel=1e-9)
        assert (
            flag == {"minority": "Yes", "majority": "No", "": "No threshold set"}[row["predicted"]]
        )


def test_a_map_holds_the_numbers_of_the_heat_map_where_they_lie(made, run, batch):
    folder, _ = made
    maps = {
        m.SourceImageSequence[0].ReferencedSOPInstanceUID[-1]: m for m in objects(folder, "map")
    }
    detector = load_model(run)
    read = Preprocessing.from_dict(detector.preprocessing_)
    (part,) = list_images([batch], read)
    block = read_block(read, detector.input_shape_, part.items(read.size))
    for i, left in enumerate(
        detector.normalized(block.images) - detector.reconstruct(block.images)
    ):
        np.testing.assert_allclose(maps[str(i)].pixel_array, left[0], rtol=1e-6)
    volume = hd.pm.ParametricMap.from_dataset(maps["0"]).get_volume_geometry()
    # The corners of the image, from its own header, and those of the map.
    of_image = [[10, 20 - 0.5 * 0.5, 30 + 0.5 * 2]]
    found = volume.map_indices_to_reference(np.array([[0, -0.5, -0.5]]))
    np.testing.assert_allclose(found, of_image, atol=1e-6)
    far = volume.map_indices_to_reference(np.array([[0, 15.5, 15.5]]))
    np.testing.assert_allclose(far - found, [[0, 24 * 0.5, -20 * 2]], atol=1e-6)
    assert maps["0"].FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert maps["1"].FrameOfReferenceUID != maps["2"].FrameOfReferenceUID


def test_a_picture_is_the_image_with_its_heat_map(made):
    folder, _ = made
    (picture, *_) = [
        p
        for p in objects(folder, "picture")
        if p.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.40"
    ]
    drawn, grey = picture.pixel_array.astype(int), image(0)
    assert drawn.shape == (20, 24, 3)
    calm = (drawn == grey[..., None]).all(-1)
    assert 0.2 < calm.mean() < 1
    assert (drawn[~calm].max(-1) > drawn[~calm].min(-1)).mean() > 0.9


def test_made_again_they_are_the_same_and_none_is_written(made, run, batch):
    folder, _ = made
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    said = export(run, batch, folder)
    assert "0 new DICOM objects" in said[-1]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before


def test_killed_it_goes_on_with_what_is_missing(made, run, batch, tmp_path):
    out = tmp_path / "to"
    shutil.copytree(made[0], out)
    names = {path.name for path in out.iterdir()}
    for kind in ("map", "report"):
        next(out.glob(f"{kind}-*")).unlink()
    (out / ".map-1.dcm.abcdefgh.tmp").touch()
    assert "2 new DICOM objects" in export(run, batch, out)[-1]
    assert {path.name for path in out.iterdir()} == names


def test_another_file_of_the_name_is_not_replaced(made, run, batch, tmp_path):
    out = tmp_path / "to"
    out.mkdir()
    (mine,) = [out / path.name for path in sorted(made[0].glob("picture-*"))[:1]]
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="is not what its name says"):
        export(run, batch, out)
    assert mine.read_text() == "mine"


def test_another_rule_is_another_report_with_the_same_maps(made, run, batch, tmp_path):
    out = tmp_path / "to"
    shutil.copytree(made[0], out)
    assert "2 new DICOM objects" in export(run, batch, out, rule=Rule(false_alarms=0.4))[-1]
    assert len(objects(out, "report")) == 4


@pytest.mark.parametrize(
    ("kept", "more", "said"),
    [
        (slice(0, 0), [], "no StudyInstanceUID in its DICOM header"),
        (slice(1, None), [element(0x00080005, "CS", "ISO_IR 999")], ""),
        (slice(None), [element(0x00100030, "DA", "2026/1/1")], "a damaged PatientBirthDate"),
        (slice(None), [element(0x00100040, "CS", "X")], "a damaged PatientSex"),
        (slice(None), [*placed()[:2], element(0x00200037, "DS", "1\\1\\0\\1\\1\\0")], ""),
        (slice(None), [element(0x00280030, "DS", "0\\x")], ""),
    ],
)
def test_what_a_header_lacks_is_told_and_made_up(run, tmp_path, kept, more, said):
    (tmp_path / "x.dcm").write_bytes(dicom(image(1), *whose()[kept], *more))
    words = export(run, tmp_path / "x.dcm", tmp_path / "to")
    assert said in " ".join(words)
    assert len(list((tmp_path / "to").iterdir())) == 3
    for kind in ("report", "map", "picture"):
        (one,) = objects(tmp_path / "to", kind)
        assert one.StudyInstanceUID
        assert one.PatientName in ("", NAME) or kept.start
    assert_valid(tmp_path / "to")


@pytest.mark.parametrize("sop", [ENHANCED, "1.2.3.4.5.6"])
def test_each_frame_has_its_map_in_its_own_place(run, tmp_path, sop):
    def group(z: int) -> bytes:
        return sequence(0x00209113, element(0x00200032, "DS", f"0\\0\\{z}"))

    shared = sequence(0x00209116, element(0x00200037, "DS", "1\\0\\0\\0\\1\\0"))
    shared += sequence(0x00289110, element(0x00280030, "DS", "1\\1"))
    file = dicom(
        image(3, n=2),
        *whose(),
        element(0x00200052, "UI", FRAME_OF_REFERENCE),
        element(0x00280008, "IS", "2"),
        sequence(0x52009229, shared),
        sequence(0x52009230, group(5), group(7)),
        sop=sop,
        rows=20,
    )
    (tmp_path / "x.dcm").write_bytes(file)
    export(run, tmp_path / "x.dcm", tmp_path / "to")
    maps = objects(tmp_path / "to", "map")
    found = {
        m.SourceImageSequence[0].ReferencedFrameNumber: float(
            m.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2]
        )
        for m in maps
    }
    assert found == {1: 5, 2: 7}
    assert {m.SourceImageSequence[0].ReferencedSOPClassUID for m in maps} == {sop}


def test_patients_with_one_study_have_reports_of_their_own(run, tmp_path):
    """The first one's report told of the other's images; a copy in another study crashed it."""
    folder = tmp_path / "new"
    folder.mkdir()
    other = [element(0x00100020, "LO", "0816") if b"0815" in part else part for part in whose()]
    (folder / "a.dcm").write_bytes(dicom(image(0), *whose(sop="1.2.3.40"), sop=CT))
    (folder / "b.dcm").write_bytes(dicom(image(1), *other, sop=CT))
    (folder / "c.dcm").write_bytes(dicom(image(1), *whose("1.2.4"), sop=CT))
    said = " ".join(export(run, folder, tmp_path / "to"))
    assert "2 reports on 2 images" in said
    assert "1 image: a copy of another one" in said
    found = {}
    for report in objects(tmp_path / "to", "report"):
        (series,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        sops = [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence]
        found[report.PatientID] = (*sops, report.SeriesInstanceUID)
    assert {patient: sop for patient, (sop, _) in found.items()} == {
        "0815": "1.2.3.40",
        "0816": "1.2.3.4",
    }
    assert len({series for _, series in found.values()}) == 2


def test_what_is_no_dicom_file_is_counted(run, batch, tmp_path):
    shutil.copytree(batch, tmp_path / "new")
    np.save(tmp_path / "new" / "x.npy", image(9))
    shutil.copy(tmp_path / "new" / "0.dcm", tmp_path / "new" / "again.dcm")
    said = " ".join(export(run, tmp_path / "new", tmp_path / "to"))
    assert "1 image: no DICOM file" in said
    assert "1 image: a copy of another one" in said
    assert "2 reports on 3 images, 8 new" in said


def test_of_which_side_an_image_is_its_pictures_say_and_a_report_does_not(run, tmp_path):
    """A report is of no side, and the standard has no such attribute there."""
    side = element(0x00200060, "CS", "L")
    (tmp_path / "x.dcm").write_bytes(dicom(image(1), *whose(), side))
    export(run, tmp_path / "x.dcm", tmp_path / "to")
    found = {kind: objects(tmp_path / "to", kind)[0].get("Laterality") for kind in KINDS}
    assert found == {"report": None, "picture": "L", "map": "L"}


def test_where_there_is_no_dicom_file_nothing_is_written(run, tmp_path):
    np.savez(tmp_path / "images.npz", image=np.stack([image(8), image(9)]), label=[0, 0])
    said = export(run, tmp_path / "images.npz", tmp_path / "to")
    assert said == ["2 images: no DICOM file, so that it has no DICOM objects."]
    assert not list((tmp_path / "to").glob("*.dcm"))


def test_a_method_without_heat_maps_has_reports_alone(images, batch, tmp_path):
    """Nor has an image that cannot be read any object."""
    model, new = tmp_path / "model", tmp_path / "new"
    quick("ocsvm").fit(images).save(model, preprocessing=Preprocessing(size=16).to_dict())
    shutil.copytree(batch, new)
    (new / "broken.dcm").write_bytes(b"no")
    *_, told, said = export(model, new, tmp_path / "to")
    assert "2 reports on 3 images, 2 new DICOM objects" in told
    assert said == "conocc OCSVM draws no heat map: there are reports alone."
    assert {path.name.partition("-")[0] for path in (tmp_path / "to").glob("*.dcm")} == {"report"}


def assert_valid(folder) -> None:
    """Have David Clunie's dciodvfy look at all objects."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("there is no dciodvfy (Debian: dicom3tools)")
    for path in folder.iterdir():
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stderr, done.stderr


def test_an_independent_validator_accepts_them(made):
    assert_valid(made[0])


def test_without_highdicom_it_says_what_to_install(run, batch, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "conocc.deploy.dicom_out", None)
    out = ("--out", tmp_path / "scores.csv", "--dicom-out", tmp_path / "to")
    code, said = call("score", run, batch, *out)
    assert (code, list(tmp_path.iterdir())) == (1, [])
    assert "pip install 'conocc[dicom-out]'" in said
