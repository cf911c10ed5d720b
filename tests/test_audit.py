"""The audit of dependencies: what fails, and what is only said."""

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def judged():
    spec = importlib.util.spec_from_file_location("audit", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judged


def test_a_vulnerability_that_is_known_fails_by_name(judged):
    found = {"id": "PYSEC-1", "fix_versions": ["1.1"]}
    packages = [
        {"name": "fine", "version": "2", "vulns": []},
        {"name": "open", "version": "1.0", "vulns": [found, {"id": "PYSEC-2", "fix_versions": []}]},
        {"name": "own", "skip_reason": "distribution marked as editable"},
    ]
    code, said = judged(json.dumps({"dependencies": packages}), "Found 2 vulnerabilities")
    assert code == 1
    assert said.splitlines() == [
        "open 1.0: PYSEC-1, mended in 1.1",
        "open 1.0: PYSEC-2, mended in no version yet",
        "Audited 2 of 3 packages: 2 known to be open.",
    ]


def test_nothing_found_is_well(judged):
    packages = [{"name": "fine", "version": "2", "vulns": []}]
    assert judged(json.dumps({"dependencies": packages}), "") == (
        0,
        "Audited 1 of 1 packages: 0 known to be open.",
    )


def test_a_service_that_is_not_reached_is_said_and_is_no_failure(judged):
    last = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev')"
    code, said = judged("", f"Traceback\n  File\n{last}\n")
    why = "requests.exceptions.ConnectionError"
    assert (code, said) == (
        0,
        f"Dependencies are not audited: the service was not reached ({why}).",
    )


def test_any_other_failure_fails(judged):
    code, said = judged("", "usage: pip_audit\nNo module named pip_audit\n")
    assert (code, said) == (1, "The audit of dependencies failed: No module named pip_audit")
