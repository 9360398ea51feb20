#!/usr/bin/env python3
"""What the examiners used, from the records of their sessions (pytest --record): `examined.py RECORD...`

Prints each session's versions, and each route of tests/hub/routes.txt with the sessions that were answered
there. Exits 1 for a route that no examiner was answered at, for a public function of the official client that
its session neither called nor has listed below as none of the test Hub's business, and for a call of NEEDED
that a session did not make.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "hub"))

import hub  # noqa: E402, F401  (registers the routes)
import routes  # noqa: E402

# Functions for services of the Hub that hub-api.md leaves out, and those among them that it does not.
OTHERS = re.compile(r"""
    .*bucket.* | .*collection.* | .*webhook.* | .*inference.* | .*jobs?(_.*)? | .*paper.* | .*like.*
    | .*_space(_.*)? | .*spaces_hardware | search_spaces | get_zero_gpu_quota
    | .*followers | .*following | list_organization_members
    | get_(dataset|model)_tags | get_dataset_leaderboard | list_dataset_parquet_files | upload_attachment | kernel_info
""", re.VERBOSE)
KEPT = {"duplicate_space", "list_spaces", "space_info"}


def calls(prefix, names):
    """The names of a comma-separated list, each behind the prefix."""
    return {prefix + name.strip() for name in names.split(",")}


# The calls that each session must make; those of the client's API object are required without being listed.
OFFICIAL = (
    {"CommitScheduler.trigger", "HfApi.create_commit(run_as_future)"}
    | calls("HfFileSystem.", "ls, info, find, walk, open, cat_file, pipe_file, cp_file, mv, rm, get_file")
    | calls("hf ", "upload, download, cp, cache verify, models info, auth whoami, auth login")
    | calls("hf discussions ", "create, comment, close, merge")
    | calls("hf repos ", "create, delete, move, duplicate, settings, tag create, branch create")
)
NEEDED = {
    "clients": OFFICIAL | calls("git ", "clone, fetch, pull, push, lfs fetch, lfs pull, lfs prune"),
    "clients-hub1": OFFICIAL | calls("hf ", "repo create, upload-large-folder"),
    "clients-libraries": (
        calls("AutoTokenizer.", "from_pretrained") | calls("AutoConfig.", "from_pretrained")
        | calls("PreTrainedTokenizerFast.", "save_pretrained(push_to_hub), push_to_hub")
        | calls("BertConfig.", "save_pretrained(push_to_hub), push_to_hub")
        | calls("Dataset.", "push_to_hub, to_parquet") | calls("DatasetDict.", "push_to_hub")
        | calls("load_dataset", ",(streaming)")
        | calls("@huggingface/hub ", "commit, uploadFile, uploadFiles, listFiles, downloadFile")
        | calls("hfjs ", "upload, branch, repo")
        | calls("@huggingface/hub ", "createRepo, deleteRepo, createBranch, fileDownloadInfo, whoAmI")
    ),
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
    found = [
        routes.match_route(method, path)
        for origin, method, path, _, status, _ in record["requests"]
        if origin == "hub" and status is not None and status < 400
    ]
    return {row[:2] for row, _ in filter(None, found)}


def main(paths):
    """Compare the records; the name of each file is that of its session."""
    records = {
        pathlib.Path(path).stem: json.loads(pathlib.Path(path).read_text(encoding="utf-8")) for path in paths
    }
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
        made = f"{len(record['calls'])} functions and commands, {total} requests"
        print(f"{name}: {', '.join(record['agents'])}; {made}")
    print("\n".join(missing) or "every listed route was exercised")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
