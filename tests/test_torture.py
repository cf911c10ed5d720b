"""Short forms of the torture that `make torture` does at length."""

import os
from collections import Counter

import pytest
from torture import strikes
from torture.mutations import GOOD, LOADERS, _outcome, survive
from torture.samples import samples


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="module")
def whole(scratch, monkeypatch_module):
    monkeypatch_module.delenv("CONOCC_DATA", raising=False)
    return samples(scratch)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_every_loader_has_a_whole_file_and_reads_it(whole, scratch):
    assert {sample.loader for sample in whole} == set(LOADERS)
    outcomes = [_outcome(0, sample, sample.data, scratch) for sample in whole]
    assert not [outcome for outcome in outcomes if outcome.what != "decoded"]


def test_damaged_files_are_decoded_or_refused_in_one_sentence(whole, scratch):
    outcomes = survive(300, 1, whole, scratch)
    assert len(outcomes) == 300
    assert not [outcome for outcome in outcomes if outcome.what not in GOOD]


STRUCK = [
    ("fit", "SIGKILL to all"),
    ("fit", "disk full"),
    ("fit", "a file changes"),
    ("score", "SIGTERM"),
    ("score", "read-only folder"),
    ("score", "started twice"),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the strikes fork")
def test_what_is_struck_ends_as_if_nothing_had_been(tmp_path, monkeypatch):
    monkeypatch.setenv("CONOCC_CACHE", str(tmp_path / "cache"))
    struck = [pair for pair in STRUCK if pair[1] not in strikes.impossible()]
    results = strikes.torture(struck, 0, tmp_path)
    assert Counter(result.what for result in results) == {"survived": len(struck)}, results
