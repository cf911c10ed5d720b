"""Rules that flag images: their thresholds, their words, and how they turned out."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conocc.experiments.groups import summary
from conocc.metrics.confidence_intervals import share_interval
from conocc.thresholds.conformal import Calibration, benjamini_hochberg, calibrate, p_values
from conocc.thresholds.rule import Rule
from conocc.thresholds.rules import decisions, observed_rates

# Sixty patients with two images: 1 to 60, and each less a half.
SCORES = np.arange(0.5, 60.5, 0.5)
PATIENTS = np.repeat([f"p{i}" for i in range(60)], 2)


def detector(*, patient=PATIENTS, scores=SCORES):
    """What decisions know of a detector."""
    calibration = None if scores is None else calibrate(scores, patient=patient)
    return SimpleNamespace(calibration_=calibration)


def words(rule, **changes):
    return decisions(detector(**changes), rule).words()


# --- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patients", "rate"), [(14, 0.2), (28, 0.2), (29, 0.1), (58, 0.1), (59, 0.05), (400, 0.05)]
)
def test_what_nobody_asks_for_is_the_smallest_rate_that_can_be_promised(patients, rate):
    known = detector(scores=np.arange(patients), patient=None)
    assert decisions(known, Rule()) == decisions(known, Rule(false_alarms=rate))


@pytest.mark.parametrize(
    ("scores", "has", "more"),
    [
        (None, "not calibrated", "14 more patients"),
        (range(9), "calibrated on 9 images", "5 more images"),
        (range(13), "calibrated on 13 images", "1 more image"),
    ],
)
def test_where_nothing_can_be_promised_nothing_is_decided_and_it_is_said(scores, has, more):
    decided = decisions(detector(scores=scores, patient=None), Rule())
    assert decided.flagged(np.array([7.0])) is None
    assert decided.columns(np.array([6.0, 7.0]))[1] == ["", ""]
    said = f"No image is flagged, since nothing can be promised: the model is {has}"
    assert decided.words().startswith(said)
    assert f"It takes {more} ('conocc calibrate') to promise" in decided.words()
    rates = observed_rates(MINORITY, None, patient=None, unit="image")
    assert set(rates.values()) == {None}
    measured = {"decision": decided.as_json(), "observed_rates": rates}
    assert summary(measured) == [decided.words()]


@given(
    st.lists(st.integers(0, 40), min_size=14, max_size=80),
    st.lists(st.integers(-1, 41), min_size=1, max_size=12),
    st.sampled_from([Rule(), Rule(confidence=0.8), Rule(false_alarms=0.3), Rule(fdr=0.2)]),
)
def test_flags_and_p_values_of_one_table_never_contradict(kept, batch, rule):
    """Whatever is flagged has a smaller p-value than whatever is not, and a small one."""
    decided = decisions(detector(patient=None, scores=kept), rule)
    p, predicted = decided.columns(np.array(batch, dtype=float))
    flagged = [one for one, what in zip(p, predicted, strict=True) if what == "minority"]
    passed = [one for one, what in zip(p, predicted, strict=True) if what == "majority"]
    assert max(flagged, default=0) < min(passed, default=2)
    assert max(flagged, default=0) <= (decided.rule.false_alarms or decided.rule.fdr)


def test_a_rate_of_false_discoveries_that_can_flag_nothing_is_refused():
    """Of n scores the smallest p-value is 1 / (n + 1)."""
    few = detector(patient=None, scores=np.arange(18))
    with pytest.raises(ValueError, match="5 % false discoveries .* at least 19 images. Got 18"):
        decisions(few, Rule(fdr=0.05))
    enough = decisions(detector(patient=None, scores=np.arange(19)), Rule(fdr=0.05))
    assert enough.flagged(np.array([20.0, 30.0])).all()


def test_a_rate_of_false_alarms_sets_the_threshold_whatever_the_detectors_own():
    """Of 60 scores the largest is needed at 5 %: of 59, it is the smallest number at all."""
    decided = decisions(detector(), Rule(false_alarms=0.05, unit="patient"))
    assert decided.threshold == 60.0
    assert decided.columns(np.array([60.0, 60.5]))[1] == ["majority", "minority"]
    one_image = decisions(detector(), Rule(false_alarms=0.05))
    assert one_image.threshold in (59.5, 60.0)


def test_a_volume_is_decided_on_where_the_promise_is_of_all_of_a_patients_images():
    """It is flagged if any slice is; what is promised of an image says nothing of a volume."""
    decided = decisions(detector(), Rule(false_alarms=0.05, unit="patient"))
    assert decided.of_volumes([60.0, 60.5]) == ["majority", "minority"]
    for rule in (Rule(), Rule(false_alarms=0.05), Rule(fdr=0.1)):
        assert decisions(detector(), rule).of_volumes([60.0, 60.5]) == ["", ""]
    undecided = decisions(detector(scores=None), Rule(unit="patient"))
    assert undecided.of_volumes([60.0]) == [""]


def test_without_minority_images_false_alarms_alone_are_told():
    flagged, minority = np.array([True, False, False, False]), np.zeros(4, bool)
    rates = observed_rates(minority, flagged, patient=None, unit="image")
    assert rates["false_alarms"]["value"] == 0.25
    assert rates["sensitivity"] is rates["false_discoveries"] is None
    decision = {**decisions(detector(), Rule()).as_json(), "unit": "image"}
    said = summary({"decision": decision, "observed_rates": rates, "metrics": {}})
    assert said[0].startswith("There is no minority image, so that only false alarms can be told")
    assert sum("False alarms on the test split: 1 of 4" in one for one in said) == 1


def test_p_values_stand_beside_the_scores_wherever_there_is_a_calibration():
    """By patient: of 60 maxima, 1 to 60, sixty are at least 1, one at least 59.5."""
    for rule in (Rule(unit="patient"), Rule(false_alarms=0.05, unit="patient")):
        p, _ = decisions(detector(), rule).columns(np.array([1.0, 59.5, 61.0]))
        assert p == [61 / 61, 2 / 61, 1 / 61]
        p, _ = decisions(detector(), rule).columns(np.arange(1.0, 61.0))
        assert p == [(62 - i) / 61 for i in range(1, 61)]
    p, _ = decisions(detector(scores=None), Rule()).columns(np.array([1.0, 8.0]))
    assert p == ["", ""]


def test_a_batch_is_flagged_by_benjamini_and_hochberg():
    """Of four at 20 %: two p of 1/61 are below 2/4 * 0.2, the third, 40/61, is above 3/4 * 0.2."""
    decided = decisions(detector(patient=None, scores=np.arange(1.0, 61)), Rule(fdr=0.2))
    scores = np.array([70.0, 21.5, 0.0, 61.0])
    p, flagged = decided.columns(scores)
    assert decided.threshold is None
    assert p == [1 / 61, 40 / 61, 61 / 61, 1 / 61]
    assert flagged == ["minority", "majority", "majority", "minority"]
    assert not decided.flagged(np.array([0.0, 30.0])).any()
    assert decided.with_batch_threshold(scores).threshold == 60.0  # the largest of the calibration
    assert decided.with_batch_threshold(np.array([0.0, 30.0])).threshold == np.inf


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=20),
    st.lists(st.integers(-1, 21), max_size=12),
    st.sampled_from([0.05, 0.2, 0.5, 0.95]),
)
def test_a_batch_has_a_threshold_that_flags_what_its_p_values_flag(kept, batch, rate):
    """Ties, small calibrations and all."""
    assume(rate * (len(kept) + 1) >= 1)
    decided = decisions(detector(patient=None, scores=kept), Rule(fdr=rate))
    flagged = benjamini_hochberg(p_values(kept, batch), rate=rate)
    assert decided.flagged(np.array(batch, dtype=float)).tolist() == flagged.tolist()


def test_a_batch_by_patient_counts_patients():
    """At 4 %: of two patients, one p of 1/61 <= 0.04 / 2 is enough; of three images it is not.

    Another image of that patient, which is as usual as any, is not flagged.
    """
    scores, patient = np.array([70.0, 3.0, 2.0]), np.array(["a", "a", "b"])
    by_patient = decisions(detector(), Rule(fdr=0.04, unit="patient"))
    batch = by_patient.with_batch_threshold(scores, patient)
    assert batch.flagged(scores).tolist() == [True, False, False]
    assert batch.columns(scores)[1] == ["minority", "majority", "majority"]
    by_image = decisions(detector(), Rule(fdr=0.04)).with_batch_threshold(scores, patient)
    assert not by_image.flagged(scores).any()
    with pytest.raises(ValueError, match="needs to know whose images"):
        by_patient.flagged(scores)


# At 4 % the three high scores are few enough among five, and the one of the second block is not.
@pytest.mark.parametrize("rule", [Rule(), Rule(false_alarms=0.1), Rule(fdr=0.2), Rule(fdr=0.04)])
def test_images_that_come_in_blocks_are_decided_as_one_batch(rule):
    decided = decisions(detector(), rule)
    scores = np.array([70.0, 80.0, 3.0, 61.0, 7.5])
    whole = decided.with_batch_threshold(scores)
    (p, predicted), (more_p, more) = whole.columns(scores[:2]), whole.columns(scores[2:])
    assert (p + more_p, predicted + more) == decided.columns(scores)


# --- words -------------------------------------------------------------------------------------


def test_the_words_name_promise_certainty_unit_and_patients():
    by_image = words(Rule(false_alarms=0.05))
    assert by_image.startswith(
        "At most 5 % of new majority images are flagged (95 % certainty). It was "
        "calibrated on one image, drawn at random, of each of 60 patients"
    )
    by_patient = words(Rule(false_alarms=0.1, confidence=0.9, unit="patient"))
    assert by_patient.startswith(
        "At most 10 % of new majority patients are flagged (90 % certainty). It was "
        "calibrated on the highest score of each of 60 patients"
    )
    assert "flagged if any image is" in by_patient
    assert by_image.endswith(
        "never trained on, and holds for an image drawn at random from a new patient like these."
    )
    assert by_patient.endswith(
        "holds for new patients like these with as many images, flagged if any image is."
    )
    unknown = words(Rule(false_alarms=0.1), patient=None)
    assert unknown.endswith("holds for new images like these.")
    assert "calibrated on 120 images" in unknown
    assert "patients are not known" in unknown
    files = replace(calibrate(SCORES, patient=PATIENTS), whose="file")
    assert Calibration.from_json(files.as_json()).each == "file"
    said = decisions(SimpleNamespace(calibration_=files), Rule()).words()
    assert "of each of 60 files" in said
    assert said.endswith("drawn at random from a new file like these.")
    batch = words(Rule(fdr=0.1))
    assert "At most 10 % of the images flagged in a batch are expected" in batch


@pytest.mark.parametrize(
    ("rule", "least"), [(Rule(false_alarms=0.05, confidence=0.99), 90), (Rule(fdr=0.01), 99)]
)
def test_what_there_is_too_little_of_is_called_what_it_is(rule, least):
    """By hand: 0.95^90 < 0.01 < 0.95^89; 1 / 100 is no more than 1 %."""
    with pytest.raises(ValueError, match=f"on at least {least} patients. Got 60"):
        words(rule)
    with pytest.raises(ValueError, match=f"on at least {least} images. Got 60"):
        words(rule, scores=range(60), patient=None)


def test_what_is_noted_is_plain_values():
    noted = json.loads(json.dumps(decisions(detector(), Rule(false_alarms=0.05)).as_json()))
    assert noted["calibration_patients"] == 60
    assert (noted["false_alarms"], noted["unit"], noted["fdr"]) == (0.05, "image", None)
    assert decisions(detector(scores=None), Rule()).as_json()["calibration_patients"] is None


def test_an_evaluation_is_summed_up_in_sentences():
    """One of four has the exact interval 0.63 to 80.6 %."""
    minority = np.array([False, False, False, False, True, True])
    flagged = np.array([True, False, False, False, True, True])
    measured = {
        "decision": decisions(detector(), Rule(false_alarms=0.05)).as_json(),
        "observed_rates": observed_rates(minority, flagged, patient=None, unit="image"),
    }
    sentences = summary(measured)
    assert sentences[0] == measured["decision"]["words"]
    assert sentences[1].startswith("Images are flagged above an anomaly score of ")
    assert sentences[2] == (
        "False alarms on the test split: 1 of 4 majority images flagged (25.0 %, "
        "95 % interval 0.6–80.6 %)."
    )
    assert "Sensitivity on the test split: 2 of 2 minority images flagged (100.0 %" in sentences[3]
    assert "1 of 3 flagged images of the majority class (33.3 %" in sentences[4]
    assert summary({}) == []
    none_flagged = observed_rates(minority, flagged & False, patient=None, unit="image")
    nothing = decisions(detector(), Rule(fdr=0.1)).with_batch_threshold(np.array([1.0]))
    sentences = summary({"decision": nothing.as_json(), "observed_rates": none_flagged})
    assert "No image is flagged." in sentences
    assert not [one for one in sentences if "above an anomaly" in one or "coveries" in one]


@pytest.mark.parametrize(("of", "broken"), [(40, False), (400, True)])
def test_a_broken_promise_is_said(of, broken):
    """A tenth are false alarms where a twentieth was promised: of 40 by chance, of 400 not."""
    minority, flagged = np.arange(of + 1) == of, np.arange(of + 1) % 10 == 0
    measured = {
        "decision": decisions(detector(), Rule(false_alarms=0.05)).as_json(),
        "observed_rates": observed_rates(minority, flagged, patient=None, unit="image"),
    }
    assert (
        any("flagged than the 5 % promised" in sentence for sentence in summary(measured)) == broken
    )
    measured["decision"] = decisions(detector(), Rule(fdr=0.1)).as_json()
    assert not any("promised" in sentence for sentence in summary(measured))


def test_a_model_that_can_be_scored_in_two_ways_is_calibrated_by_the_one_in_force():
    bare, scored = detector(scores=None), detector(scores=None)
    scored.scored_by = "residual"
    for one, end in ((bare, "trained on."), (scored, "trained on, by the same --score.")):
        with pytest.raises(ValueError, match=r"^This SimpleNamespace is not .*" + end + "$"):
            decisions(one, Rule(fdr=0.1))


def test_patients_above_what_was_promised_them_are_patients():
    """The promise is exact, so that it is not broken where it is just met."""
    minority, flagged = np.arange(401) == 400, np.arange(401) % 10 == 0
    rates = observed_rates(minority, flagged, patient=None, unit="image")
    decision = decisions(detector(), Rule(false_alarms=0.05, unit="patient")).as_json()
    said = summary({"decision": decision, "observed_rates": rates})[-1]
    assert said.startswith(
        "More majority patients are flagged than the 5 % promised. That happens by chance after at "
        "most 5 % of calibrations; or the majority images of the test split are not like those"
    )
    decision["false_alarms"] = rates["false_alarms"]["low"]
    said = summary({"decision": decision, "observed_rates": rates})
    assert not any("flagged than" in sentence for sentence in said)


def test_what_else_was_measured_is_summed_up():
    """A batch, a share left to a reader, groups that are flagged more, AUCs below a half."""
    rate = {"value": 0.05, "low": 0.01, "high": 0.09, "of": 200}
    twice = {"value": 0.1, "low": 0.06, "high": 0.15, "of": 100}
    decision = decisions(detector(), Rule(false_alarms=0.05)).as_json()
    rates = {"false_alarms": rate, "sensitivity": None, "false_discoveries": None}

    def group(by, name, majority, alarms, high):
        auc = None if high is None else {"high": high}
        return {"by": by, "group": name, "majority": majority, "false_alarms": alarms, "AUC": auc}

    kept = {"left": 40, "band": [1.5, 2.5], "false_alarms": rate, "sensitivity": None}
    measured = {
        "decision": decision,
        "observed_rates": rates,
        "batch": {"words": ["It differs."], "moved": {"mean": "It is brighter."}},
        "abstention": [{"share": 0.1, **kept}, {"share": 0.2, **kept}],
        "groups": [
            group("", "all", 200, twice, 0.9),
            group("class", "cyst", 200, twice, 0.45),
            group("class", "mass", 200, rate, 0.5),
            group("site", "north", 100, twice, None),
            group("site", "south", 100, {**twice, "low": 0.05}, 0.9),
            group("site", "west", 100, None, 0.9),
        ],
    }
    said = summary(measured)
    at = said.index("It differs.")
    counted = "10 of 200 majority images flagged (5.0 %, 95 % interval 1.0–9.0 %)"
    assert said[at - 1] == f"False alarms on the test split: {counted}."
    assert said[at + 1] == "It is brighter."
    assert said[at + 2] == (
        "If the 40 images (20 %) nearest the threshold, with scores of 1.5 to 2.5, are left to a "
        f"reader, of the others: {counted}."
    )
    assert said[at + 3] == (
        "In groups, more majority images are flagged than the 5 % promised: site north. "
        "Calibrate on images of each."
    )
    assert said[at + 4].startswith("The whole interval of the AUC lies below 0.5 (class cyst): ")
    assert len(said) == at + 5
    decision["false_alarms"] = None
    assert not any("In groups" in sentence for sentence in summary(measured))
    del measured["batch"], measured["abstention"], measured["groups"]
    assert len(summary(measured)) == at


# --- how it turned out -------------------------------------------------------------------------

MINORITY = np.array([False, False, False, False, True, True, True])
FLAGGED = np.array([True, True, False, False, True, False, False])
WHOSE = np.array(["a", "a", "b", "c", "c", "d", "d"])


def test_by_image_each_image_counts_and_intervals_go_by_patient():
    """Two of four majority images are flagged, one of three minority, two of three flagged."""
    found = observed_rates(MINORITY, FLAGGED, patient=WHOSE, unit="image")
    values = {name: (share["value"], share["of"]) for name, share in found.items()}
    assert values == {
        "false_alarms": (2 / 4, 4),
        "sensitivity": (1 / 3, 3),
        "false_discoveries": (2 / 3, 3),
    }
    low = share_interval(FLAGGED[:4], patient=WHOSE[:4]).low
    assert found["false_alarms"]["low"] == low != share_interval(FLAGGED[:4]).low
    unknown = observed_rates(MINORITY, FLAGGED, patient=None, unit="image")
    assert unknown["false_alarms"]["low"] == share_interval(FLAGGED[:4]).low


def test_by_patient_any_image_flags_its_patient():
    """Majority: a of a, b, c. Minority: c of c, d. Flagged: a, who has no minority image, and c."""
    found = observed_rates(MINORITY, FLAGGED, patient=WHOSE, unit="patient")
    values = {name: (share["value"], share["of"]) for name, share in found.items()}
    assert values == {
        "false_alarms": (1 / 3, 3),
        "sensitivity": (1 / 2, 2),
        "false_discoveries": (1 / 2, 2),
    }
    assert found["sensitivity"]["low"] == share_interval([True, False]).low


def test_where_nothing_is_flagged_there_is_no_share_of_it():
    found = observed_rates(MINORITY, FLAGGED & False, patient=WHOSE, unit="image")
    assert found["false_discoveries"] is None
    assert found["false_alarms"]["value"] == 0


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Rule(false_alarms=0.1, fdr=0.1), "one promise"),
        (lambda: Rule(false_alarms=5), r"'false_alarms'.*\(0, 1\). Got 5"),
        (lambda: Rule(confidence=1.0), "'confidence'.*Got 1.0"),
        (lambda: Rule(fdr=0.0), "'fdr'.*Got 0.0"),
        (lambda: Rule(unit="slice"), "'unit'.*Got 'slice'"),
        (lambda: words(Rule(false_alarms=0.1), scores=None), "not calibrated.*--calibrate"),
        (lambda: words(Rule(fdr=0.1), scores=None), "not calibrated.*conocc calibrate"),
        (lambda: words(Rule(false_alarms=0.01)), "at least 299 .* Got 60"),
        (lambda: words(Rule(false_alarms=0.1, unit="patient"), patient=None), "'patient' needs"),
        (
            lambda: observed_rates(MINORITY, FLAGGED, patient=None, unit="patient"),
            "patients are known",
        ),
    ],
)
def test_refusals_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
