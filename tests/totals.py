#!/usr/bin/env python3
"""Adds up what the runners of tests/run counted, from the files that they leave for programs.

    totals.py MESON_BUILD... LOGS

Prints each runner's closing lines and one line `N passed, N failed, N skipped` at the end; exits 1 when anything failed,
was skipped, or a runner counted nothing.
"""
import glob
import json
import os
import sys
import xml.etree.ElementTree

PASSED = {"OK", "EXPECTEDFAIL"}


def of_meson(build):
    """(passed, failed, skipped) of a build folder's last run."""
    with open(os.path.join(build, "meson-logs", "testlog.json"), encoding="utf-8") as file:
        results = [json.loads(line)["result"] for line in file]
    passed = sum(result in PASSED for result in results)
    skipped = results.count("SKIP")
    return passed, len(results) - passed - skipped, skipped


def of_pytest(path):
    suites = xml.etree.ElementTree.parse(path).getroot().iter("testsuite")
    counts = [[int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")] for suite in suites]
    tests, failures, errors, skipped = map(sum, zip(*counts))
    return tests - failures - errors - skipped, failures + errors, skipped


def closing_lines(log):
    """What a runner said last: pytest's line of ===, meson's block of counts."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip() for line in file]
    if any(line.startswith("Ok: ") for line in lines):
        first = max(number for number, line in enumerate(lines) if line.startswith("Ok: "))
        return [line for line in lines[first:first + 6] if line]
    return lines[-1:]


def main():
    *builds, logs = sys.argv[1:]
    runners = ["unit-" + (build.partition("build-")[2] or "gcc") for build in builds]
    found = dict(zip(runners, map(of_meson, builds)))
    expected = {"clients", "clients-hub1", "clients-libraries", "mount-root", "mount-user"}
    for path in sorted(glob.glob(os.path.join(logs, "*.xml"))):
        found[os.path.basename(path)[:-len(".xml")]] = of_pytest(path)
    for name in found:
        print(f"-- {name}")
        print("\n".join(closing_lines(os.path.join(logs, name + ".log"))))
    empty = sorted(expected - found.keys()) + [name for name, counts in found.items() if sum(counts) == 0]
    for name in empty:
        print(f"{name} counted no test")
    passed, failed, skipped = map(sum, zip(*found.values()))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or skipped or empty else 0


if __name__ == "__main__":
    sys.exit(main())
