#!/usr/bin/env python3
"""What the examiners used, from the records of their sessions (pytest --record): `examined.py RECORD...`

Prints each session's versions, and each route of tests/hub/routes.txt with the sessions that were answered there. Exits 1
for a route that no examiner was answered at, for a public function of the official client that its session neither
called nor has listed below as none of the test Hub's business, and for a call of NEEDED that a session did not make.
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


OFFICIAL = {
    "CommitScheduler.trigger", "HfApi.create_commit(run_as_future)",
    *("HfFileSystem." + name for name in "ls info find walk open cat_file pipe_file cp_file mv rm get_file put_file".split()),
    *("hf " + name for name in ("upload", "download", "cp", "auth whoami", "auth login", "cache verify", "models info",
                                "repos create", "repos delete", "repos move", "repos tag create", "discussions merge")),
}
NEEDED = {  # calls of each session; what is in the client's API object is required without being listed
    "clients": OFFICIAL | {"git " + name for name in ("clone", "fetch", "pull", "push", "lfs fetch", "lfs pull", "lfs prune")},
    "clients-hub1": OFFICIAL | {"hf repo create", "hf upload-large-folder"},
    "clients-libraries": {
        "AutoTokenizer.from_pretrained", "AutoConfig.from_pretrained", "BertConfig.save_pretrained(push_to_hub)",
        "PreTrainedTokenizerFast.save_pretrained(push_to_hub)", "Dataset.push_to_hub", "DatasetDict.push_to_hub",
        "load_dataset", "load_dataset(streaming)", "Dataset.to_parquet",
        *("@huggingface/hub " + name for name in (
            "commit", "uploadFile", "uploadFiles", "listFiles", "downloadFile", "snapshotDownload", "createRepo",
            "deleteRepo", "createBranch", "fileDownloadInfo", "pathsInfo", "listCommits", "whoAmI")),
    },
}


def uncalled(name, record):
    """The functions and commands that a session should have called and did not."""
    called = set(record["calls"])
    public = {function for function in record["public"] if function in KEPT or not OTHERS.fullmatch(function)}
    return sorted((NEEDED[name] | {"HfApi." + function for function in public}) - called)


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
    """Compare the records; the name of each file is that of its session."""
    records = {pathlib.Path(path).stem: json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in paths}
    missing = [f"{name} left no record" for name in NEEDED if name not in records]
    seen = {}
    for name, record in records.items():
        missing += [f"{name}: {call} was never called" for call in uncalled(name, record)]
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
