"""Volumes among other files: listed, loaded, fitted and scored slice by slice."""

from __future__ import annotations

import csv
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conocc.data.volumes
from conocc.data.decoding import decode_one, digest_of
from conocc.data.image_io.nifti import read_nifti
from conocc.data.image_io.stack import StackOptions, cut
from conocc.data.index import ImageEntry, of_files
from conocc.data.layouts import list_cohort
from conocc.data.load import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.data.pseudonyms import pseudonym
from conocc.data.unlabelled import list_images, read_block, shards
from conocc.data.volumes import by_volume, read_stack, with_slices
from made_cohorts import make_folder, write_image
from made_nifti import nifti, write_volume
from test_cli import QUICK, call

READING = Preprocessing(size=16)
UNHURRIED = settings(deadline=None)  # other work shares the cores


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of volumes, of which slices 1 to 4 are not empty; patient b is in both."""
    names = ("plain/a.nii", "plain/b.nii.gz", "plain/c.nii", "odd/b.nii", "odd/d.nii.gz")
    for seed, name in enumerate(names):
        write_volume(tmp_path / name, seed=seed)
    return tmp_path


def sliced(folder, axis="axial", **options):
    return with_slices(list_cohort(folder), StackOptions(axis), n_jobs=2, **options)


def voxels_of(path):
    return read_nifti(path.read_bytes()).voxels


def fetched(listing, rows):
    blobs = (fetch() for fetch in listing.fetch(rows))
    return [blob if isinstance(blob, bytes) else blob.pixels for blob in blobs]


def test_a_volume_becomes_its_slices_in_order(folder):
    """Of the class of their volume, empty ones left aside and counted."""
    listing = sliced(folder)
    names = [entry.path for entry in listing.entries]
    assert names[:5] == [*(f"odd/b.nii[{k}]" for k in (1, 2, 3, 4)), "odd/d.nii.gz[1]"]
    assert [entry.label for entry in listing.entries] == ["odd"] * 8 + ["plain"] * 12
    assert listing.notes == (
        "5 files read as 20 axial slices.",
        "10 left aside in 5 files: empty slices, constant or less than 5 % above the background.",
    )


def test_slices_are_fetched_as_they_lie_in_the_volume(folder):
    listing = sliced(folder)
    voxels = voxels_of(folder / "odd/d.nii.gz")
    for blob, k in zip(fetched(listing, [5, 7]), (2, 4), strict=True):
        np.testing.assert_array_equal(blob, cut(voxels, "axial", k))


def test_each_volume_is_read_once_whatever_its_slices(folder, monkeypatch):
    """And only those whose slices are asked for."""
    listing = sliced(folder)
    read = []

    def counted(folder, path, options, prefix):
        read.append(path)
        return read_stack(folder, path, options, prefix)

    monkeypatch.setattr(conocc.data.volumes, "read_stack", counted)
    fetched(listing, [*range(6), 19])
    assert read == ["odd/b.nii", "odd/d.nii.gz", "plain/c.nii"]


def test_a_volume_is_let_go_with_its_last_slice(folder):
    read = [read_stack(folder, "odd/b.nii", StackOptions())]
    shared = conocc.data.volumes._SharedStack(read.pop, 2)
    kept = weakref.ref(shared.get())
    assert shared.get() is kept()
    assert kept() is None


def test_the_axis_decides_what_is_an_image(folder):
    """18 sagittal slices of 20x6 voxels, right to left; none is empty."""
    listing = sliced(folder, "sagittal")
    assert len(listing.entries) == 5 * 18
    assert listing.notes == ("5 files read as 90 sagittal slices.",)
    assert fetched(listing, [0])[0].shape == (6, 20)


def test_files_that_are_no_volumes_stay_as_they_are(folder):
    make_folder(folder, "odd/a.png", "plain/z.png")
    listing = sliced(folder)
    assert [listing.entries[i].path for i in (0, 1, -1)] == [
        "odd/a.png",
        "odd/b.nii[1]",
        "plain/z.png",
    ]
    blobs = fetched(listing, [0, 1, len(listing.entries) - 1])
    assert [type(blob) for blob in blobs] == [bytes, np.ndarray, bytes]
    plain = list_cohort(make_folder(folder / "flat", "a/1.png"))
    assert with_slices(plain, StackOptions(), n_jobs=1) is plain


def test_series_and_nan_are_told(tmp_path):
    voxels = np.random.default_rng(0).normal(100, 9, (16, 16, 2, 3)).astype(np.float32)
    voxels[3, 4, 1, 0] = np.nan
    (tmp_path / "a.nii").write_bytes(nifti(voxels))
    listing = sliced(tmp_path)
    assert listing.notes == (
        "1 file read as 2 axial slices.",
        "2 left aside in 1 file: volumes after the first, such as time points.",
    )
    (fetch,) = listing.fetch([0])
    assert fetch().remarks == ("NaN voxels read as the lowest value of the volume",)


def test_a_volume_that_cannot_be_read_is_named_when_it_is_fetched(folder):
    """Cut, or empty throughout: the others are cut all the same."""
    (folder / "plain/a.nii").write_bytes((folder / "plain/c.nii").read_bytes()[:400])
    (folder / "plain/e.nii").write_bytes(nifti(np.full((16, 16, 3), 7, np.int16)))
    listing = sliced(folder)
    names = [entry.path for entry in listing.entries]
    for name, said in (
        ("plain/a.nii", "its voxels are damaged, cut short"),
        (
            "plain/e.nii",
            "none of its 3 axial slices is an image: all are left aside",
        ),
    ):
        with pytest.raises(ValueError, match=f"Cannot read '{name}': {said}"):
            fetched(listing, [names.index(name)])
    with pytest.raises(ValueError, match=r"'plain/a.nii': .* 2 of 18 images cannot be read"):
        load_cohort(folder, Preprocessing(size=16), majority="plain")


def test_a_slice_that_is_listed_by_name_is_taken_even_if_it_is_empty(folder):
    """With a class, a side and a patient of its own; its number is held against the volume."""
    table = "path,label,split,patient\nplain/a.nii[0],x,train,p\nplain/a.nii[2],y,test,q\n"
    (folder / "set.csv").write_text(table)
    listing = with_slices(list_cohort(folder / "set.csv"), StackOptions(), n_jobs=1)
    assert [(e.path, e.label, e.split, e.patient) for e in listing.entries] == [
        ("plain/a.nii[0]", "x", "train", "p"),
        ("plain/a.nii[2]", "y", "test", "q"),
    ]
    empty, full = fetched(listing, [0, 1])
    assert not empty.any()
    assert full.all()
    (folder / "set.csv").write_text(table + "plain/a.nii[6],y,test,q\n")
    listing = with_slices(list_cohort(folder / "set.csv"), StackOptions(), n_jobs=1)
    with pytest.raises(ValueError, match=r"'plain/a.nii\[6\]': it holds 6 axial slices, counted"):
        fetched(listing, [2])
    (folder / "set.csv").write_text(table + "plain/a.nii,y,test,q\n")
    with pytest.raises(ValueError, match=r"'plain/a.nii\[2\]' is listed with its volume, and by"):
        with_slices(list_cohort(folder / "set.csv"), StackOptions(), n_jobs=1)


def test_a_column_that_numbers_slices_is_asked_about(folder):
    """All slices of the volume would be of the class of the one that is meant."""
    (folder / "list.csv").write_text("path,label,slice_idx\nplain/a.nii,x,2\nplain/c.nii,y,3\n")
    listing = list_cohort(folder / "list.csv")
    with pytest.raises(ValueError, match="'plain/a.nii' holds several .* 'slice_idx'.* 'FILE.3.'"):
        with_slices(listing, StackOptions(), n_jobs=1)
    (folder / "list.csv").write_text("path,label,slices\nplain/a.nii,x,6\nplain/a.nii[2],y,1\n")
    with pytest.raises(ValueError, match="is listed with its volume, and by itself too"):
        with_slices(list_cohort(folder / "list.csv"), StackOptions(), n_jobs=1)


def test_frames_chooses_among_the_slices_that_are_not_empty(folder):
    """Of 1, 2, 3 and 4: the third is in the middle, and 1 and 3 are the middles of two halves."""
    for frames, numbers in (("middle", (3,)), ("first", (1,)), ("2", (2, 4)), ("9", (1, 2, 3, 4))):
        listing = with_slices(list_cohort(folder), StackOptions(frames=frames), n_jobs=2)
        own = [entry.path for entry in listing.entries if entry.path.startswith("odd/b")]
        assert own == [f"odd/b.nii[{k}]" for k in numbers]
        others = f"{5 * (4 - len(numbers))} left aside in 5 files: not asked for by frames="
        assert any(note.startswith(others) for note in listing.notes) == (len(numbers) < 4)


def test_a_volume_is_known_by_its_content(tmp_path):
    """Of any name, and of none that a suffix is in; a file called as a slice is, is itself."""
    for name, new in (("a/x.nii", "a/x.png"), ("a/y.nii.gz", "a/y.img"), ("b/z.nii", "b/z[1].png")):
        write_volume(tmp_path / name).rename(tmp_path / new)
    write_image(tmp_path / "b/film.png").rename(tmp_path / "b/film[2]")
    names = ["a/x.png", "a/y.img", "b/film[2]", "b/z[1].png"]
    entries = [ImageEntry(name, name[0]) for name in names]
    listing = with_slices(of_files("files", tmp_path, entries), StackOptions(), n_jobs=2)
    numbered = [f"{name}[{k}]" for name in names for k in (1, 2, 3, 4)]
    assert [entry.path for entry in listing.entries] == [*numbered[:8], "b/film[2]", *numbered[12:]]
    np.testing.assert_array_equal(
        fetched(listing, [6])[0], cut(voxels_of(tmp_path / "a/y.img"), "axial", 3)
    )
    assert fetched(listing, [8]) == [(tmp_path / "b/film[2]").read_bytes()]


def test_a_file_of_one_image_has_no_numbers(tmp_path):
    write_image(tmp_path / "a/x.png")
    entries = [ImageEntry("a/x.png[0]", "a")]
    listing = with_slices(of_files("files", tmp_path, entries), StackOptions(), n_jobs=1)
    with pytest.raises(ValueError, match=r"'a/x.png\[0\]': its file holds one image, which has no"):
        fetched(listing, [0])


def test_what_will_not_be_used_is_not_opened(tmp_path):
    """Minority volumes of a given training split."""
    names = ("train/good/a.nii", "train/bad/b.nii", "test/good/c.nii", "test/bad/d.nii")
    for seed, name in enumerate(names):
        write_volume(tmp_path / name, seed=seed)
    (tmp_path / "train/bad/b.nii").write_bytes(b"nothing")
    cohort = load_cohort(tmp_path, Preprocessing(size=16), majority="good")
    assert len(cohort) == 12
    assert "1 minority image of the training split left unused." in cohort.notes


# Cohorts


def test_a_cohort_of_volumes_is_split_by_volume(folder):
    """A row a slice, with its own digest; each volume counts as a patient, who is not known."""
    cohort = load_cohort(folder, Preprocessing(size=16), majority="plain", test_size=0.3)
    table = cohort.table().set_index("path")
    assert len(cohort) == 20
    assert table["digest"].nunique() == 20
    voxels = voxels_of(folder / "plain/a.nii")
    assert table.loc["plain/a.nii[3]", "digest"] == digest_of(cut(voxels, "axial", 3))
    assert table.loc["plain/b.nii.gz[3]", "patient"] == "plain/b.nii.gz"
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert not cohort.leaks()
    assert not cohort.patients_known
    assert cohort.groups.tolist() == cohort.patient.tolist()
    note = "Patients are not known: each file of several images counts as a patient of its own."
    assert note in cohort.notes
    assert any("of the majority images, by file, with" in said for said in cohort.notes)
    i = cohort.path.tolist().index("plain/a.nii[3]")
    decoded = decode_one(READING, ("x", lambda: cut(voxels, "axial", 3)))
    np.testing.assert_array_equal(cohort.images[i], decoded.image)


def test_a_cohort_of_volumes_is_kept_in_the_cache(folder, tmp_path_factory):
    """Of one axis only."""
    cache = tmp_path_factory.mktemp("kept")
    first = load_cohort(folder, Preprocessing(size=16), majority="plain", cache=cache)
    again = load_cohort(folder, Preprocessing(size=16), majority="plain", cache=cache)
    np.testing.assert_array_equal(first.images, again.images)
    assert len([*cache.rglob("*.npy")]) == 1
    other = load_cohort(
        folder, Preprocessing(size=16, axis="coronal"), majority="plain", cache=cache
    )
    assert other.preprocessing.axis == "coronal"
    assert len([*cache.rglob("*.npy")]) == 2


def test_slices_of_a_volume_stay_together_among_other_images(folder):
    """Where patients are not known, too."""
    write_image(folder / "odd/x.png")
    cohort = load_cohort(folder, Preprocessing(size=16), majority="plain")
    assert not cohort.patients_known
    assert len(set(cohort.patient.tolist())) == 6
    sides = cohort.table().groupby("patient")["split"].nunique()
    assert (sides == 1).all()


def test_pseudonyms_hide_the_name_of_a_volume_and_not_the_number_of_a_slice(folder):
    cohort = load_cohort(folder, Preprocessing(size=16), majority="plain", pseudonyms=True)
    hidden = f"{pseudonym('plain')}/{pseudonym('b.nii.gz')}.nii.gz[3]"
    assert hidden in cohort.path.tolist()
    i = cohort.path.tolist().index(hidden)
    assert cohort.patient[i] == hidden.removesuffix("[3]")


def test_images_are_loaded_from_files_and_folders_of_volumes(folder):
    bad = folder / "plain/a.nii"
    bad.write_bytes(bad.read_bytes()[:400])
    parts = list_images([folder / "plain", folder / "odd/d.nii.gz"], READING)
    items = [item for part in parts for item in part.items(None)]
    block = read_block(READING, (1, 16, 16), items)
    base = folder.as_posix()
    assert block.path[:2] == (f"{base}/plain/b.nii.gz[1]", f"{base}/plain/b.nii.gz[2]")
    assert block.path[-1] == f"{base}/odd/d.nii.gz[4]"
    assert len(block.path) == 12
    ((name, reason),) = block.errors
    assert name == bad.as_posix()
    assert reason.startswith(f"Cannot read '{name}': its voxels are damaged")


def test_a_volume_may_lie_across_two_shards(folder):
    """Its slices then come from both, and its time and size decide on each."""
    parts = list_images([folder / "odd"], Preprocessing(size=16, axis="coronal"))
    pieces = [*shards(parts, 25)]
    paths = [path for shard in pieces for part in shard for path, _ in part.items(16)]
    assert len(paths) == 40
    assert paths[20:] == [f"{folder.as_posix()}/odd/d.nii.gz[{k}]" for k in range(20)]
    (part,) = pieces[1]
    assert len(set(part.stamps())) == 1
    assert part.stamps()[0][0] == (folder / "odd/d.nii.gz").stat().st_size
    (_, fetch), *_ = part.items(None)
    voxels = voxels_of(folder / "odd/d.nii.gz")
    np.testing.assert_array_equal(fetch().pixels, cut(voxels, "coronal", 5))


def test_a_volume_that_is_mended_after_it_was_listed_is_named(folder):
    """It was one image without slices then."""
    file = folder / "odd/b.nii"
    whole = file.read_bytes()
    file.write_bytes(whole[:400])
    listing = sliced(folder)
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="'odd/b.nii' changed while it was being read"):
        fetched(listing, [0])


# Scores


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9))), st.integers(1, 4))
def test_scores_of_a_volume_are_those_of_a_slow_reading(scored, top):
    """Whatever the order in which slices of several volumes come."""
    paths = [f"{volume}.nii[{i}]" for i, (volume, _) in enumerate(scored)]
    rows = by_volume(paths, [float(score) for _, score in scored], top=top)
    assert [row[0] for row in rows] == list(dict.fromkeys(f"{v}.nii" for v, _ in scored))
    for volume, slices, maximum, mean, used in rows:
        own = sorted(score for v, score in scored if f"{v}.nii" == volume)
        assert (slices, maximum, used) == (len(own), own[-1], min(top, len(own)))
        assert mean == pytest.approx(np.mean(own[-top:]))


def test_a_top_of_none_is_refused():
    with pytest.raises(ValueError, match="'top' parameter must be at least 1. Got 0 instead"):
        by_volume([], [], top=0)


def test_volumes_are_fitted_evaluated_and_scored_by_command(folder, tmp_path):
    """Along the axis of the training; scores by slice, and by volume beside them."""
    write_image(folder / "new/flat.png", side=20)
    write_volume(folder / "new/v.nii", seed=9)
    run = tmp_path / "run"
    options = ["--majority", "plain", "--size", "16", "--axis", "coronal"]
    (tmp_path / "set").mkdir()
    for name in ("plain", "odd"):
        (folder / name).rename(tmp_path / "set" / name)
    code, said = call("fit", tmp_path / "set", *options, "--out", run, *QUICK)
    assert code == 0, said
    assert "5 files read as 100 coronal slices." in said
    assert json.loads((run / "run.json").read_text())["preprocessing"]["axis"] == "coronal"
    code, said = call("evaluate", run, tmp_path / "set", "--no-cache")
    assert code == 0, said
    out = tmp_path / "scored" / "scores.csv"
    code, said = call("score", run, folder / "new", "--out", out, "--top", "2", "--quiet")
    assert code == 0, said
    said = " ".join(said.split())
    rows = list(csv.DictReader(out.read_text().splitlines()))
    own = [float(row["anomaly_score"]) for row in rows if "v.nii[" in row["path"]]
    assert (len(rows), len(own)) == (21, 20)
    (volume,) = csv.DictReader((out.parent / f"{out.stem}.volumes.csv").read_text().splitlines())
    assert volume["volume"] == f"{folder.as_posix()}/new/v.nii"
    assert (volume["slices"], volume["top"]) == ("20", "2")
    assert float(volume["maximum"]) == max(own)
    assert volume["predicted"] == ""
    assert "Volumes are decided on under --false-alarms with --unit patient" in said
    assert float(volume["mean_of_top"]) == pytest.approx(sum(sorted(own)[-2:]) / 2)
    code, said = call("score", run, folder / "new", "--out", out, "--top", "0")
    assert code == 1
    assert "must be at least 1" in said
    call("score", run, folder / "new/flat.png", "--out", out, "--quiet")
    assert not (out.parent / f"{out.stem}.volumes.csv").exists()


def test_every_real_volume_is_scored_by_slice_or_refused_with_a_reason(data, caplog):
    """Of 14, three are masks, and one is CIFTI."""
    caplog.set_level("INFO", logger="conocc")
    parts = list_images([data / "nifti"], READING)
    block = read_block(READING, (1, 16, 16), [item for part in parts for item in part.items(None)])
    volumes = by_volume(block.path, [0.0] * len(block.path), top=1)
    assert len(volumes) == 10
    assert "3 masks ('ACRIN-6698-102212_spy2_vis1_mask.nii.gz' …) left aside." in caplog.text
    assert np.isfinite(block.images).all()
    assert [Path(path).name for path, _ in block.errors] == ["row_major.dconn.nii"]
    assert all(path in reason for path, reason in block.errors)
