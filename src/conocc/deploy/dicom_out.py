"""Results as DICOM objects: of each study a report, of each image its heat map, twice.

The report is a structured one (TID 1500). A heat map is a secondary capture, drawn as the review
page draws it, and a parametric map of the numbers, at the resolution that the method sees. They
belong to the study of their images and so name the patient. Made of the same model and images they
have the same UIDs, and what is there is not made again.

Letters: h and w pixels; k the number of a frame, from 0, or None where there are none.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import highdicom as hd
import numpy as np
from highdicom import sr
from PIL import Image
from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from conocc._version import __version__
from conocc.data.decoding import prefetch, said_of, usable_threads
from conocc.data.image_io.dicom import group_of
from conocc.data.image_io.dicom_header import numbers, read_header
from conocc.data.image_io.read import format_of
from conocc.data.index import content, count
from conocc.data.preprocessing import Preprocessing
from conocc.data.unlabelled import Part
from conocc.data.volumes import file_and_number
from conocc.detectors.file_scores import one_torch_thread, preprocessing_of
from conocc.experiments.run import load_model, model_hash
from conocc.io.files import atomic_write, folder_lock
from conocc.io.pictures import rgb
from conocc.io.progress import bar
from conocc.thresholds.rule import RULE, Rule
from conocc.thresholds.rules import Decisions, decisions
from conocc.visualization.images import DRAWN, colours
from conocc.visualization.review import PIECE, Examined, examined, placed, shown_window

# Kinds of objects, and the numbers of their series, behind those of a scanner.
REPORT, PICTURE, MAP = "report", "picture", "map"
SERIES = {REPORT: 9801, PICTURE: 9802, MAP: 9803}
# What an object says of patient and study as its image does; these may be empty.
ABOUT = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "IssuerOfPatientID", "Laterality"),
)
UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Where an image has no place in the patient, its map has one of its own.
PLACE = {
    "ImagePositionPatient": ("PlanePositionSequence", [0.0] * 3),
    "ImageOrientationPatient": ("PlaneOrientationSequence", [1.0, 0, 0, 0, 1, 0]),
    "PixelSpacing": ("PixelMeasuresSequence", [1.0, 1.0]),
}
SCORE, P_VALUE, FLAGGED, UNDECIDED = (
    sr.CodedConcept(meaning.lower().replace(" ", "-"), "99CONOCC", meaning)
    for meaning in ("Anomaly score", "P-value", "Flagged as minority", "No threshold set")
)
_HEAD = 2**12  # bytes of an object, in which its UID stands
_FAR = 1e6  # mm


class _Row(NamedTuple):
    """An image of a study; `place` is that of its score among all."""

    source: Dataset
    k: int | None
    digest: str
    place: int


def export_files(
    run: str | Path,
    parts: Sequence[Part],
    out: str | Path,
    *,
    rule: Rule = RULE,
    score: str | None = None,
    verbose: int = 0,
) -> list[str]:
    """Write DICOM objects on images of DICOM files, scored as `score_files` scores them.

    Parameters
    ----------
    run, rule, score
        See `conocc.experiments.inference.score_files`.
    parts : sequence of Part
        What that scored.
    out : path
        A folder; what lies there is never replaced.

    Raises
    ------
    FileExistsError
        If another file has the name of an object.
    BlockingIOError
        If another process is at work on `out`.
    """
    detector = load_model(run, score)
    preprocessing, decided = preprocessing_of(detector, run), decisions(detector, rule)
    export = _Export(Path(out), detector, preprocessing, model_hash(run))
    items = chain.from_iterable(_located(part, preprocessing.size) for part in parts)
    pieces = iter(lambda: list(islice(items, PIECE)), [])
    with (
        folder_lock(export.out),
        one_torch_thread(),
        bar("Making DICOM objects", sum(map(len, parts)), verbose=verbose) as advance,
    ):
        for done in prefetch(export.draw, pieces, n_jobs=usable_threads(None), handful=1):
            for (file, k), one in done:
                if isinstance(one, Examined):  # others are in the table of errors
                    export.take(file, k, one)
            advance(len(done))
        export.report(decided)
    return export.words()


def _located(part: Part, size: int | None) -> Iterator[tuple[tuple[str, int | None], Any]]:
    """Pair each image of a part with the file that it is of, and the number of its frame."""
    files = (file_and_number(Path(part.where), name) for name in part.names)
    for (file, k), item in zip(files, part.items(size), strict=True):
        yield (os.path.join(part.where, file), k), item


def _header(data: bytes) -> Dataset | None:
    return read_header(data) if format_of(data) == "DICOM" else None


@lru_cache(maxsize=1)  # one frame of a file follows another
def _header_of(file: str) -> Dataset | None:
    with suppress(ValueError):  # an archive, or gone by now
        return _header(content("", file))
    return None


class _Export:
    """Objects of one model in one folder."""

    def __init__(self, out: Path, detector: Any, preprocessing: Preprocessing, model: str) -> None:
        self.out, self.detector, self.preprocessing = out, detector, preprocessing
        self.method = f"conocc {type(detector).__name__}"
        self.made_by = [__version__, model, str(getattr(detector, "scored_by", ""))]
        self.studies = defaultdict[tuple[str, str], list[_Row]](list)  # each of one patient
        self.seen = set[tuple[str, int | None, str]]()
        self.scores, self.said, self.new = list[float](), Counter[str](), 0

    def draw(self, items: Any) -> list[tuple[Any, Any]]:
        """Read, score and explain some images, in one thread."""
        return list(examined(self.detector, self.preprocessing, items))

    def take(self, file: str, k: int | None, one: Examined) -> None:
        """Write the heat map of an image, and note it for the report."""
        self.scores.append(one.score)
        ds = _header(one.blob) if isinstance(one.blob, bytes) else _header_of(file)
        if ds is None:
            self.said["no DICOM file, so that it has no DICOM objects"] += 1
            return
        digest = hashlib.sha256(one.block.images.tobytes()).hexdigest()
        source, said = source_of(ds, digest, k)
        self.said.update(said)
        if (image := (source.SOPInstanceUID, k, digest)) in self.seen:
            self.said["a copy of another one, with which it shares its objects"] += 1
            return
        self.seen.add(image)
        rows = self.studies[_study(source)]
        rows.append(_Row(source, k, digest, len(self.scores) - 1))
        if one.left is not None:
            self._write(PICTURE, rows[-1:], partial(self._picture, one))
            self._write(MAP, rows[-1:], partial(self._map, one))

    def report(self, decided: Decisions) -> None:
        """Write a report on each study, once all scores are known."""
        p_values, predicted = decided.columns(np.array(self.scores, float))
        rule = [decided.words(), f"threshold {decided.threshold}"]
        for rows in self.studies.values():
            found = [(self.scores[r.place], p_values[r.place], predicted[r.place]) for r in rows]
            self._write(REPORT, rows, partial(self._report, found, rule), found, rule)

    def words(self) -> list[str]:
        """Say how many objects there are, and what images or headers lack."""
        images, said = len(self.seen), [*said_of(self.said)]
        if images:
            said.append(
                f"{count(len(self.studies), 'report')} on {count(images, 'image')}, "
                f"{count(self.new, 'new DICOM object')}: {self.out}. They name the patients, as a "
                "PACS needs it; nothing else does that conocc writes."
            )
        if images and self.detector.residual_scale_ is None:
            said.append(f"{self.method} draws no heat map: there are reports alone.")
        return said

    def _write(
        self, kind: str, rows: list[_Row], build: Callable[..., Dataset], *about: Any
    ) -> None:
        """Write an object whose name tells what it is made of, unless it is there."""
        first = rows[0].source
        made_of = [[row.source.SOPInstanceUID, row.k, row.digest] for row in rows]
        uid = _uid(kind, *self.made_by, json.dumps([made_of, about]))
        path = self.out / f"{kind}-{uid}.dcm"
        if path.exists():
            if uid.encode() not in path.read_bytes()[:_HEAD]:
                raise FileExistsError(f"'{path}' is not what its name says. Choose another folder.")
            return
        made = build(
            rows,
            sop_instance_uid=uid,
            series_instance_uid=_uid(kind, *self.made_by, *_study(first)),
            series_number=SERIES[kind],
            series_description=f"{self.method}: {kind}",
            instance_number=len(self.studies[_study(first)]),
            manufacturer="conocc",
            manufacturer_model_name="conocc",
            software_versions=__version__,
            device_serial_number=__version__,
        )
        classes = {row.source.SOPInstanceUID: row.source.SOPClassUID for row in rows}

        def settle(item: Dataset, element: DataElement) -> None:
            if element.keyword == "ReferencedSOPClassUID":
                element.value = classes[item.ReferencedSOPInstanceUID]

        made.walk(settle)
        made.SpecificCharacterSet = "ISO_IR 192"
        made.update(_chosen(first, ABOUT))
        if kind == REPORT:
            del made.Laterality
        with atomic_write(path) as temporary:
            made.save_as(temporary, enforce_file_format=True)
        self.new += 1

    def _report(
        self, found: list[Any], rule: list[str], rows: list[_Row], **shared: Any
    ) -> Dataset:
        """Make a report of what was found of each image: score, p-value and decision."""
        version, model, scored_by = self.made_by
        words = [f"model SHA-256 {model}", *([f"score {scored_by}"] if scored_by else []), *rule]
        flags = {"minority": codes.SCT.Yes, "majority": codes.SCT.No, "": UNDECIDED}
        groups = []
        for (source, k, *_), (score, p_value, predicted) in zip(rows, found, strict=True):
            sop, frame = source.SOPInstanceUID, None if k is None else k + 1
            values = [(SCORE, score), *([] if p_value == "" else [(P_VALUE, p_value)])]
            groups.append(
                sr.MeasurementsAndQualitativeEvaluations(
                    sr.TrackingIdentifier(
                        _uid("image", sop, str(k)), f"frame {frame}" if frame else "image"
                    ),
                    algorithm_id=sr.AlgorithmIdentification(self.method, version, words),
                    measurements=[sr.Measurement(n, v, codes.UCUM.NoUnits) for n, v in values],
                    qualitative_evaluations=[sr.QualitativeEvaluation(FLAGGED, flags[predicted])],
                    source_images=[
                        sr.SourceImageForMeasurementGroup(
                            source.SOPClassUID, sop, [frame] if frame else None
                        )
                    ],
                )
            )
        device = sr.DeviceObserverIdentifyingAttributes(
            _uid(*self.made_by), "conocc", "conocc", "conocc", version
        )
        context = sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        )
        text = sr.MeasurementReport(context, codes.cid100.ImagingProcedure, groups)
        return sr.Comprehensive3DSR([_stand_in(row.source) for row in rows], text[0], **shared)

    def _picture(self, one: Examined, rows: list[_Row], **shared: Any) -> Dataset:
        """Lay the heat map over the image, as the review page does."""
        (source, k, *_) = rows[0]
        whole = one.whole(self.preprocessing)
        h, w = whole.shape[:2]
        grey = rgb(np.moveaxis(np.atleast_3d(whole), -1, 0), *shown_window(whole))
        drawn = Image.fromarray(grey)
        hot = colours(one.heat(), self.detector.residual_scale_)
        left, top, wide, tall = placed(h, w, self.preprocessing)
        heat = Image.fromarray(np.rint(255 * hot).astype(np.uint8)).resize(
            (max(1, round(wide * w)), max(1, round(tall * h))), Image.Resampling.BILINEAR
        )
        drawn.paste(heat, (round(left * w), round(top * h)), heat)
        made = hd.sc.SCImage(
            np.asarray(drawn),
            "RGB",
            8,
            "PATIENT",
            source.StudyInstanceUID,
            patient_orientation=("L", "P"),
            **shared,
        )
        made["PatientOrientation"].value = None  # it is not known
        made.SourceImageSequence = [_reference(source, k)]
        return made

    def _map(self, one: Examined, rows: list[_Row], **shared: Any) -> Dataset:
        """Give the numbers of the heat map, and where each lies in the patient."""
        (source, k, *_) = rows[0]
        scale, values = self.detector.residual_scale_, one.heat().astype(np.float32)
        h, w = one.whole(self.preprocessing).shape[:2]
        left, top, wide, tall = placed(h, w, self.preprocessing)
        across, down = w * wide / values.shape[1], h * tall / values.shape[0]  # pixels a value
        spacing = np.array(source.PixelSpacing, float)
        axes = np.array(source.ImageOrientationPatient, float).reshape(2, 3)
        first = (w * left + across / 2 - 0.5) * spacing[1], (h * top + down / 2 - 0.5) * spacing[0]
        position = np.array(source.ImagePositionPatient, float) + first @ axes
        unit = hd.pm.RealWorldValueMapping(
            scale.of[:16], DRAWN[scale.of].name, codes.UCUM.NoUnits, (-1e30, 1e30), 0.0, 1.0
        )
        made = hd.pm.ParametricMap(
            [_stand_in(source)],
            values,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[unit],
            voi_lut_transformations=[hd.VOILUTTransformation(0.0, 2 * scale.full)],
            pixel_measures=hd.PixelMeasuresSequence(spacing * [down, across], 1.0),
            plane_orientation=hd.PlaneOrientationSequence("PATIENT", axes.ravel().tolist()),
            plane_positions=[hd.PlanePositionSequence("PATIENT", position)],
            **shared,
        )
        frame = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
        made.SourceImageSequence = [_reference(source, k)]
        frame.SourceImageSequence[0].update(_reference(source, k))
        return made


def source_of(ds: Dataset, digest: str, k: int | None) -> tuple[Dataset, list[str]]:
    """Take from a header what objects need; what it lacks, or has damaged, is made up and told.

    `digest` tells the image from others.
    """
    source, damaged = Dataset(), []
    for keyword in (*ABOUT, *UIDS, "SOPClassUID", "FrameOfReferenceUID"):
        try:
            value = ds.get(keyword)
            value = value if value is None else str(value)
            if keyword == "PatientSex" and value not in (None, "", "M", "F", "O"):
                raise ValueError
            setattr(source, keyword, value)
            DataElement(keyword, source[keyword].VR, value, validation_mode=RAISE)
        except Exception:
            damaged.append(keyword)
            setattr(source, keyword, "")
        if not source[keyword].value and keyword not in ABOUT:
            del source[keyword]
    lacking = [keyword for keyword in UIDS if keyword not in source]
    made_up = [digest]
    for keyword in UIDS:
        if keyword not in source:
            setattr(source, keyword, _uid(keyword, *made_up))
        made_up = [source[keyword].value]
    source.setdefault("SOPClassUID", SecondaryCaptureImageStorage)
    place = {
        keyword: _numbers(group_of(ds, keyword, sequence, k or 0), keyword, len(usual))
        for keyword, (sequence, usual) in PLACE.items()
    }
    if "FrameOfReferenceUID" not in source or None in place.values():
        source.FrameOfReferenceUID = _uid("frame of reference", source.SOPInstanceUID)
        place = {"PixelSpacing": place["PixelSpacing"]}
    for keyword, (_, usual) in PLACE.items():
        setattr(source, keyword, place.get(keyword) or usual)
    said = [f"no {word} in its DICOM header, and one was made from its pixels" for word in lacking]
    said += [f"a damaged {word} in its DICOM header, left out" for word in damaged]
    return source, said


def _study(source: Dataset) -> tuple[str, str]:
    """Tell studies apart, and patients to whom one UID was given, as bad anonymisers do."""
    return source.StudyInstanceUID, str(source.PatientID or "")


def _numbers(ds: Dataset, keyword: str, n: int) -> list[float] | None:
    """Read `n` numbers, of axes that stand upright on each other, of spacings above 0."""
    with suppress(ValueError):
        found = np.array(numbers(ds, keyword))
        axes = found.reshape(-1, 3) if n == 6 else np.eye(2)
        if len(found) == n and np.isfinite(found).all() and np.abs(found).max() < _FAR:
            upright = np.allclose(axes @ axes.T, np.eye(2), atol=1e-3)
            return found.tolist() if upright and (n != 2 or found.min() > 0) else None
    return None


def _stand_in(source: Dataset) -> Dataset:
    """Give an image of a kind that highdicom knows, without the patient, who comes last."""
    stand_in = Dataset()
    stand_in.update(_chosen(source, (*UIDS, *PLACE, "FrameOfReferenceUID")))
    for word in ABOUT:
        setattr(stand_in, word, "")
    stand_in.SOPClassUID = CTImageStorage
    stand_in.Rows = stand_in.Columns = stand_in.SliceThickness = 1
    return stand_in


def _chosen(ds: Dataset, keywords: Iterable[str]) -> Dataset:
    return Dataset({ds[keyword].tag: ds[keyword] for keyword in keywords if keyword in ds})


def _reference(source: Dataset, k: int | None) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if k is not None:
        reference.ReferencedFrameNumber = k + 1
    return reference


def _uid(*parts: str) -> str:
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('conocc', *parts))).int}"
