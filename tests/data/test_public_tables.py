"""Public sets are read as they come, by the commands of `docs/tables.md`; all rows are made up."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conocc.cli import options
from conocc.cli.application import app
from made_dicom import dicom

PAGE = (Path(__file__).parents[2] / "docs/tables.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"### (.+?)\n.*?```console\n(conocc .+?)\n```", PAGE, re.DOTALL))
UID = "1.3.6.1.4.1.9590.100.1.2."
HEADS = {
    "NIH ChestX-ray14": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    ),
    "RSNA Pneumonia Detection": "patientId,x,y,width,height,Target",
    "CheXpert": (
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
        "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
        "Pleural Effusion,Pleural Other,Fracture,Support Devices"
    ),
    "ISIC 2019": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
    "ISIC 2020": (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target"
    ),
    "HAM10000": "lesion_id,image_id,dx,dx_type,age,sex,localization",
    "VinDr-CXR": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
    "CBIS-DDSM": (
        "patient_id,breast_density,left or right breast,image view,abnormality id,"
        "abnormality type,mass shape,mass margins,assessment,pathology,subtlety,"
        "image file path,cropped image file path,ROI mask file path"
    ),
}
CHEXPERT = "CheXpert-v1.0-small/train/patient9000{0}/study1/view{1}_frontal.jpg"
SERIES = f"Mass-Training_P_0900{{0}}_LEFT_CC/{UID}{{0}}/{UID}{{0}}9"
# Of each set: its rows, its files, and of each image, as the table calls it, label and patient.
SETS: dict[str, tuple[list[str], list[str], dict[str, tuple[str, str | None]]]] = {
    "NIH ChestX-ray14": (
        [
            "90000001_000.png,No Finding,0,90000001,050Y,M,PA,2682,2749,0.143,0.143,",
            "90000002_000.png,Edema|Mass,0,90000002,051Y,F,AP,2682,2749,0.143,0.143,",
            "90000002_001.png,No Finding,1,90000002,051Y,F,AP,2682,2749,0.143,0.143,",
        ],
        [f"images_00{i}/images/{n}.png" for i, n in enumerate(["90000001_000", "90000002_000"], 1)]
        + ["images_012/images/90000002_001.png"],
        {
            "90000001_000.png": ("No Finding", "90000001"),
            "90000002_000.png": ("Edema|Mass", "90000002"),
            "90000002_001.png": ("No Finding", "90000002"),
        },
    ),
    "RSNA Pneumonia Detection": (
        ["aa-1,,,,,0", "bb-2,1.0,2.0,3.0,4.0,1", "bb-2,5.0,6.0,3.0,4.0,1"],
        [f"stage_2_train_images/{name}.dcm" for name in ("aa-1", "bb-2")],
        {"aa-1.dcm": ("0", "aa-1"), "bb-2.dcm": ("1", "bb-2")},
    ),
    "CheXpert": (
        [
            CHEXPERT.format(1, 1) + ",Male,50,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
            CHEXPERT.format(2, 1) + ",Male,50,Frontal,AP,,,1.0,-1.0,,,,,,0.0,,,,",
            CHEXPERT.format(2, 2) + ",Male,51,Frontal,AP,1.0,,,,,,,,,,,,,",
        ],
        [CHEXPERT.format(*n).split("/", 1)[1] for n in ((1, 1), (2, 1), (2, 2))],
        {
            CHEXPERT.format(1, 1): ("No Finding", "patient90001"),
            CHEXPERT.format(2, 1): ("other", "patient90002"),
            CHEXPERT.format(2, 2): ("No Finding", "patient90002"),
        },
    ),
    "ISIC 2019": (
        [f"ISIC_900000{i},{2 - i}.0,{i - 1}.0{',0.0' * 7}" for i in (1, 2)],
        [f"ISIC_2019_Training_Input/ISIC_900000{i}.jpg" for i in (1, 2)],
        {"ISIC_9000001.jpg": ("other", None), "ISIC_9000002.jpg": ("NV", None)},
    ),
    "ISIC 2020": (
        [
            "ISIC_9000003,IP_9000001,male,45.0,head/neck,unknown,benign,0",
            "ISIC_9000004,IP_9000002,female,,torso,melanoma,malignant,1",
        ],
        [f"train/ISIC_900000{i}.jpg" for i in (3, 4)],
        {
            "ISIC_9000003.jpg": ("benign", "IP_9000001"),
            "ISIC_9000004.jpg": ("malignant", "IP_9000002"),
        },
    ),
    "HAM10000": (
        [
            "HAM_9000001,ISIC_9000005,nv,histo,80.0,male,scalp",
            "HAM_9000002,ISIC_9000006,mel,histo,80.0,male,scalp",
        ],
        ["HAM10000_images_part_1/ISIC_9000005.jpg", "HAM10000_images_part_2/ISIC_9000006.jpg"],
        {"ISIC_9000005.jpg": ("nv", "HAM_9000001"), "ISIC_9000006.jpg": ("mel", "HAM_9000002")},
    ),
    "VinDr-CXR": (
        [f"00aa,No finding,14,R{i},,,," for i in (1, 2, 3)]
        + [f"00bb,{what},{i},R9,1.0,2.0,3.0,4.0" for i, what in enumerate(["Nodule/Mass", "ILD"])]
        + ["00cc,No finding,14,R1,,,,", "00cc,ILD,5,R2,1.0,2.0,3.0,4.0"],
        [f"train/{name}.dicom" for name in ("00aa", "00bb", "00cc")],
        {
            "00aa.dicom": ("No finding", None),
            "00bb.dicom": ("ILD|Nodule/Mass", None),
            "00cc.dicom": ("ILD|No finding", None),
        },
    ),
    "CBIS-DDSM": (
        [
            f"P_0900{i},3,LEFT,CC,{k},mass,OVAL,ILL_DEFINED,4,{what},4,{SERIES.format(i)}/000000.dcm,"
            f'{SERIES.format(i)}8/000000.dcm,"{SERIES.format(i)}8/000001.dcm\n"'
            for i, k, what in [
                *[(1, 1, "BENIGN"), (1, 2, "BENIGN"), (2, 1, "BENIGN"), (2, 2, "MALIGNANT")],
                (3, 1, "BENIGN_WITHOUT_CALLBACK"),
            ]
        ],
        [f"CBIS-DDSM/{SERIES.format(i)}/1-1.dcm" for i in (1, 2, 3)]
        + [f"CBIS-DDSM/{SERIES.format(i)}8/1-{k}.dcm" for i in (1, 2, 3) for k in (1, 2)],
        {
            f"{SERIES.format(i)}/000000.dcm": (what, f"P_0900{i}")
            for i, what in [(1, "BENIGN"), (2, "BENIGN|MALIGNANT"), (3, "BENIGN_WITHOUT_CALLBACK")]
        },
    ),
}


def write_image(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".dcm", ".dicom"):
        path.write_bytes(dicom(pixels.astype(np.uint16)))
    else:
        Image.fromarray(pixels).save(path)


def test_the_page_has_all_the_sets():
    assert list(COMMANDS) == list(SETS) == list(HEADS)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_by_the_command_of_the_page(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    rows, files, expected = SETS[name]
    _, *words = shlex.split(COMMANDS[name])
    Path(words[2]).write_text("\n".join([HEADS[name], *rows]) + "\n", encoding="utf-8")
    for i, file in enumerate(files):
        write_image(tmp_path / file, i)
    _, given, _ = app.parse_args(words, exit_on_error=False)
    read: options.CohortOptions = given.kwargs["read"]
    cohort = replace(read.spec(words[2]), test_size=0.0).load()
    assert {
        path: (label, patient if cohort.patients_known else None)
        for path, label, patient in zip(cohort.path, cohort.label, cohort.patient, strict=True)
    } == expected
    majority = {words[i + 1] for i, word in enumerate(words) if word == "--majority"}
    assert set(cohort.label[~cohort.minority]) == majority
