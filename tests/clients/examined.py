#!/usr/bin/env python3
"""What the examiners used, from the records of their sessions (pytest --record): `examined.py RECORD...`

Prints each session's versions, and each route of tests/hub/routes.txt with the sessions that were answered there. Exits 1
for a route that no examiner was answered at, and for a public function of the official client that its session neither
called nor has listed below as none of the test Hub's business.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hub"))

import hub  # noqa: E402, F401  (registers the routes)
import routes  # noqa: E402

# Functions for services of the Hub that hub-api.md leaves out.
OTHERS = re.compile(
    "|".join((
        ".*bucket.*", ".*collection.*", ".*webhook.*", ".*inference.*", ".*jobs?(_.*)?", ".*paper.*", ".*_space(_.*)?",
        ".*spaces_hardware", "search_spaces", ".*followers", ".*following", "list_organization_members", ".*like.*",
        "get_(dataset|model)_tags", "get_dataset_leaderboard", "get_zero_gpu_quota", "kernel_info", "upload_attachment",
        "list_dataset_parquet_files", "wait_for_space")))
KEPT = {"create_space", "duplicate_space", "list_spaces", "space_info"}


def unexamined_functions(record):
    """The public functions that a session should have called and did not."""
    called = {name.partition(".")[2] for name in record["calls"] if name.startswith("HfApi.")}
    return [name for name in record["public"] if name not in called and (name in KEPT or not OTHERS.fullmatch(name))]


def listed_routes():
    """[(method, pattern)] of routes.txt."""
    lines = (HERE.parent / "hub" / "routes.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split()[:2]) for line in lines if line and not line.startswith("#")]


def answered_routes(record):
    """{(method, pattern)} of a session's requests to the Hub that ended well."""
    found = [routes.match_route(method, path) for origin, method, path, _, status, _ in record["requests"]
             if origin == "hub" and status is not None and status < 400]
    return {row[:2] for row, _ in filter(None, found)}


def main(paths):
    records = {pathlib.Path(path).stem: json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in paths}
    missing, seen = [], {}
    for name, record in records.items():
        missing += [f"{name}: {function}() was never called" for function in unexamined_functions(record)]
        for route in answered_routes(record):
            seen.setdefault(route, set()).add(name)
    for route in listed_routes():
        print(f"{route[0]:6} {route[1]:55} {', '.join(sorted(seen.get(route, []))) or 'NOBODY'}")
        if route not in seen:
            missing.append(f"{' '.join(route)}: no examiner was answered there")
    for name, record in records.items():
        total = sum(request[-1] for request in record["requests"])
        print(f"{name}: {', '.join(record['agents'])}; {len(record['calls'])} functions and commands, {total} requests")
    print("\n".join(missing) or "every listed route was exercised")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
