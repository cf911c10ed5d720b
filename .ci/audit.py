"""Audit what is installed for known vulnerabilities: one that is found fails.

A service that cannot be reached is said, and is no failure: `make check` must work offline.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

PATIENCE_S = 120
AUDIT = ("--vulnerability-service", "osv", "--skip-editable", "--format", "json")
QUIETLY = ("--progress-spinner", "off", "--timeout", "10")
UNREACHED = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError|HTTPError")


def main() -> int:
    """Run pip-audit on this interpreter's packages; print what it comes to in a few lines."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *AUDIT, *QUIETLY],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        print(f"Dependencies are not audited: the service took more than {PATIENCE_S} s.")
        return 0
    code, said = judged(done.stdout, done.stderr)
    print(said)
    return code


def judged(out: str, err: str) -> tuple[int, str]:
    """Give the exit code, and the words, for what pip-audit wrote to its two streams."""
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError):
        last = err.strip().splitlines()[-1:] or ["it said nothing"]
        if UNREACHED.search(last[0]):
            why = last[0].partition(":")[0]
            return 0, f"Dependencies are not audited: the service was not reached ({why})."
        return 1, f"The audit of dependencies failed: {last[0]}"
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    audited = sum("skip_reason" not in package for package in packages)
    lines.append(f"Audited {audited} of {len(packages)} packages: {len(lines)} known to be open.")
    return (1 if len(lines) > 1 else 0), "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
