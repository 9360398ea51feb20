"""What the test Hub's commit route takes and refuses: rules, lock, time limit, bodies, README metadata."""

import concurrent.futures
import hashlib
import json
import pathlib
import time

import pytest
from client import HubError

CONTENT = bytes(range(250)) * 4


@pytest.fixture
def filled(hub, repo):
    hub.commit(repo, {"t.txt": b"0123456789", "w.bin": CONTENT, "d/x.txt": b"x"})
    return repo


def lines(*operations, **header):
    return [
        {"key": "header", "value": {"summary": "s", "description": "", **header}},
        *({"key": key, "value": value} for key, value in operations),
    ]


def body(*operations, **header):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines(*operations, **header))


def add(path, content="x"):
    return "file", {"path": path, "content": content}


def lfs(path, data):
    return "lfsFile", {
        "path": path,
        "algo": "sha256",
        "oid": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }


def send(hub, repo, *operations, rev="main", **header):
    return hub.request("POST", f"{hub.api(repo)}/commit/{rev}", body(*operations, **header))


def refused(hub, repo, status, *operations, **more):
    """The text with which a commit is refused; nothing has changed."""
    head = hub.head(repo)
    answer = send(hub, repo, *operations, **more)
    assert (answer.status, hub.head(repo)) == (status, head), answer.body
    return answer.json()["error"]


def eventually(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The lock and the time limit


@pytest.mark.parametrize("lock", ["branch", "repository", "none"])
def test_a_commit_under_way_locks_out_others(hub, filled, lock):
    hub.branch(filled, "dev")
    hub.config(commit_lock=lock, commit_takes_ms=60_000)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        since = hub.last_seq()
        same = [pool.submit(send, hub, filled, add(name)) for name in ("first", "second")]
        if lock != "none":
            eventually(lambda: any(answer.done() for answer in same))
        other = pool.submit(send, hub, filled, add("third"), rev="dev")
        hub.wait_for(lambda seen: len(seen) == 3, since=since)
        if lock == "repository":
            eventually(other.done)
        hub.config(commit_takes_ms=0)
        answers = sorted(answer.result().status for answer in same)
    assert answers == ([200, 200] if lock == "none" else [200, 409])
    assert other.result().status == (409 if lock == "repository" else 200)
    refusal = next((answer.result() for answer in same if answer.result().status == 409), None)
    assert refusal is None or refusal.json()["error"].startswith("Another commit operation is in progress")
    for operation, status in (
        (add("fourth"), 200),
        (("deletedFile", {"path": "no"}), 404),
        (add("fifth"), 200),
    ):
        assert send(hub, filled, operation).status == status  # the lock is free again, after a refusal too


@pytest.mark.parametrize("outcome", ["lands", "fails"])
def test_a_commit_that_takes_too_long(hub, filled, outcome):
    before = len(hub.history(filled))
    hub.config(late_commit=outcome, commit_takes_ms=60_000, time_limit_ms=200)
    answer = send(hub, filled, add("late"))
    assert answer.status == 504 and answer.headers["Content-Type"] == "text/html"
    assert len(hub.history(filled)) == before
    assert send(hub, filled, add("meanwhile")).status == 409
    hub.config(commit_takes_ms=0)
    eventually(lambda: send(hub, filled, add("after")).status == 200)
    assert ("late" in hub.paths(filled)) == (outcome == "lands")


# Rules of size and number


def test_regular_files_have_a_limit(hub, filled):
    said = refused(hub, filled, 400, add("ok"), add("d/large.txt", "x" * (10 * 1024 * 1024 + 1)))
    assert "contains files larger than 10 MiB" in said and "- d/large.txt (ref: refs/heads/main)" in said
    assert "- ok" not in said
    assert send(hub, filled, add("just.txt", "x" * (10 * 1024 * 1024))).status == 200
    said = refused(hub, filled, 400, add("raw.txt", "\0" * 1_000_001))
    assert "contains binary files" in said


def test_the_limit_counts_what_the_hub_adds_to_gitattributes(hub, filled):
    hub.config(max_regular_size=len(hub.blob(filled, ".gitattributes")))
    said = refused(hub, filled, 400, lfs("untracked.x", CONTENT))
    assert "- .gitattributes (ref: refs/heads/main)" in said


def test_folders_have_a_limit(hub, filled):
    hub.config(max_folder_entries=5)
    hub.commit_lines(filled, lines(*(add(f"many/{n}") for n in range(5))))
    said = refused(hub, filled, 400, add("many/5"))
    assert "too many files per directory" in said and said.endswith(
        "up to 5 files. Offending reference: refs/heads/main Offending directories: /many/"
    )
    assert send(hub, filled, add("many/5"), ("deletedFile", {"path": "many/0"})).status == 200
    assert send(hub, filled, add("many/5", "other")).status == 200
    assert send(hub, filled, add("deep/many/5")).status == 200
    assert refused(hub, filled, 400, *(add(f"top-{n}") for n in range(9))).endswith("directories: /")


def test_the_rules_judge_commits_not_what_git_holds(hub, filled):
    hub.commit_lines(filled, lines(*(add(f"many/{n}") for n in range(9)), add("large.txt", "x" * 5000)))
    hub.config(max_folder_entries=5, max_regular_size=4000)
    assert send(hub, filled, ("deletedFile", {"path": "many/0"}), add("many/1", "new")).status == 200
    assert send(hub, filled, add("elsewhere/x")).status == 200
    assert send(hub, filled, ("file", {"path": "d/x2", "oldPath": "d/x.txt"})).status == 200
    refused(hub, filled, 400, add("many/new"))


def test_commits_have_a_size(hub, filled):
    hub.config(max_commit_lfs_files=2, max_commit_bytes=2000)
    assert send(hub, filled, *(lfs(f"{n}.bin", CONTENT) for n in range(2))).status == 200
    refused(hub, filled, 413, *(lfs(f"{n}.bin", CONTENT) for n in range(2, 5)))
    refused(hub, filled, 413, add("large", "x" * 2000))


@pytest.mark.parametrize(
    "setting, value, operation, status",
    [
        ("ignored_files", "refuse", add("x.log"), 400),
        ("cache_folder", "refuse", add("a/.cache/x"), 422),
        ("cache_folder", "refuse", lfs(".cache/x.bin", CONTENT), 422),
        ("old_path", "refuse", ("file", {"path": "moved", "oldPath": "t.txt"}), 400),
    ],
)
def test_what_perhaps_is_refused(hub, filled, setting, value, operation, status):
    hub.commit(filled, {".gitignore": b"*.log\n"})
    assert send(hub, filled, operation).status == 200
    hub.commit_lines(filled, lines(("deletedFile", {"path": operation[1]["path"]}), add("t.txt", "again")))
    hub.config(**{setting: value})
    refused(hub, filled, status, operation)
    assert send(hub, filled, add("fine")).status == 200


@pytest.mark.parametrize("status", [400, 403])
def test_a_commit_to_what_is_no_branch(hub, filled, status):
    hub.config(read_only_status=status)
    hub.tag(filled, "v1")
    for rev in ("v1", hub.head(filled)):
        assert send(hub, filled, add("x"), rev=rev).status == status


@pytest.mark.parametrize("names", ["as_given", "nfc"])
def test_names_in_two_spellings(hub, filled, names):
    hub.config(unicode_names=names)
    decomposed, composed = "u\u0308.txt", "\xfc.txt"
    assert send(hub, filled, add(decomposed, "1")).status == 200
    assert [path for path in hub.paths(filled) if path in (decomposed, composed)] == [
        composed if names == "nfc" else decomposed
    ]
    assert send(hub, filled, ("deletedFile", {"path": decomposed})).status == 200


# Contents


@pytest.mark.parametrize("setting", ["commit", "head", "refuse"])
def test_a_commit_that_changes_nothing(hub, filled, setting):
    hub.config(same_content=setting)
    for operations in (
        (add("t.txt", "0123456789"),),
        (lfs("w.bin", CONTENT),),
        (add("new"), ("deletedFile", {"path": "new"})),
    ):
        head, count = hub.head(filled), len(hub.history(filled))
        answer = send(hub, filled, *operations, parentCommit=head)
        assert answer.status == (400 if setting == "refuse" else 200)
        assert len(hub.history(filled)) == count + (setting == "commit")
        if answer.status == 200:
            assert answer.json()["commitOid"] == hub.head(filled)


def test_the_last_line_of_a_path_decides(hub, filled):
    send(
        hub,
        filled,
        add("a", "1"),
        add("a", "2"),
        ("deletedFile", {"path": "d/x.txt"}),
        add("d", "now a file"),
    )
    assert (hub.content(filled, "a"), hub.content(filled, "d")) == (b"2", b"now a file")
    send(hub, filled, ("deletedFile", {"path": "d"}), add("d/below", "3"), ("deletedFolder", {"path": "d"}))
    assert "d" not in {path.partition("/")[0] for path in hub.paths(filled)}


def test_uploaded_objects_survive_without_a_commit(hub, filled):
    data = b"uploaded long ago" * 10
    oid = hashlib.sha256(data).hexdigest()
    refused(hub, filled, 400, lfs("w2.bin", data))
    item = {"oid": oid, "size": len(data)}
    batch = f"/{filled}.git/info/lfs/objects/batch"
    (found,) = hub.call("POST", batch, {"operation": "upload", "objects": [item]})["objects"]
    hub.request("PUT", found["actions"]["upload"]["href"], data, token=None)
    for n in range(3):
        hub.commit(filled, {f"between-{n}": b"x"})
    assert "actions" not in hub.call("POST", batch, {"operation": "upload", "objects": [item]})["objects"][0]
    assert send(hub, filled, lfs("w2.bin", data)).status == 200
    assert hub.content(filled, "w2.bin") == data


def test_lfs_lines_are_compared_with_what_was_uploaded(hub, filled):
    line = lfs("copy.bin", CONTENT)
    assert "does not exist" in refused(hub, filled, 400, ("lfsFile", {**line[1], "oid": "0" * 64}))
    assert "1000 bytes" in refused(hub, filled, 400, ("lfsFile", {**line[1], "size": 999}))
    refused(hub, filled, 400, ("lfsFile", {**line[1], "algo": "md5"}))
    other = filled.replace("model", "other")
    hub.create_repo(other)
    refused(hub, other, 400, line)  # objects belong to their repository


# Bodies


def test_the_older_body_that_is_one_object(hub, filled):
    oid = hashlib.sha256(CONTENT).hexdigest()
    answer = hub.request(
        "POST",
        f"{hub.api(filled)}/commit/main",
        {
            "summary": "s",
            "description": "d",
            "parentCommit": hub.head(filled),
            "files": [{"path": "d", "content": "eA==", "encoding": "base64"}],
            "lfsFiles": [{"path": "copy.bin", "algo": "sha256", "oid": oid, "size": 1000}],
            "deletedEntries": [{"path": "d"}],
        },
    )
    assert answer.status == 200
    assert (hub.content(filled, "d"), hub.content(filled, "copy.bin")) == (b"x", CONTENT)
    for wrong in ({"summary": "s"}, {"summary": "s", "files": {}}, {"files": [{"path": "x", "content": ""}]}):
        assert hub.request("POST", f"{hub.api(filled)}/commit/main", wrong).status == 400


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "The header must have a summary"),
        (b"nonsense\n", "Every line must be a JSON object"),
        (b'["key", "value"]\n', "Every line must be a JSON object"),
        (b'{"key":"header","value":"s"}\n', "The value of a line must be a JSON object"),
        (
            b'{"key":"header","value":{"summary":"s"}}\n{"key":"file","value":{"path":"x","con',
            "Every line must be",
        ),
        (
            b'{"key":"header","value":{"summary":"s"}}\n',
            "Add a line with the key `lfsFile`, `file` or `deletedFile`",
        ),
        (
            b'{"key":"header","value":{"summary":"s"}}\n{"key":"copyFile","value":{"path":"x"}}\n',
            "Unknown key copyFile",
        ),
        (
            b'{"key":"header","value":{"summary":" "}}\n{"key":"file","value":{"path":"x","content":""}}\n',
            "summary",
        ),
    ],
)
def test_lines_that_are_none(hub, filled, text, words):
    head = hub.head(filled)
    answer = hub.request(
        "POST", f"{hub.api(filled)}/commit/main", text, {"Content-Type": "application/x-ndjson"}
    )
    assert answer.status == 400 and words in answer.json()["error"]
    assert hub.head(filled) == head


def test_empty_lines_are_skipped(hub, filled):
    text = b"\n\n".join(body(add("x")).split(b"\n")) + b"\r\n"
    assert hub.request("POST", f"{hub.api(filled)}/commit/main", text).status == 200


# README.md

METADATA = [
    ("license: mit\ntags: [a, b]\nlanguage: en\n", "model", [], []),
    ("license: [mit, apache-2.0]\nlanguage:\n- en\n- multilingual\n", "dataset", [], []),
    ("license: gpl-2.0-or-later\n", "model", ['"license" must be one of [apache-2.0, mit,'], []),
    ("language: EN\n", "model", ['"language" must only contain lowercase characters'], []),
    (
        "language:\n- en\n- english\n",
        "dataset",
        ['"language[1]" with value "english" is not valid. It must be an ISO 639'],
        [],
    ),
    ("tags: one\n", "model", ['"tags" must be an array'], []),
    ('base_model: ""\n', "model", ['"base_model" is not allowed to be empty'], []),
    (
        "base_model: ./local/path\n",
        "model",
        ['"base_model" with value "./local/path" is not valid. Use a model id'],
        [],
    ),
    ("base_model:\n- user/a\n- user/b/c\n", "model", ['"base_model[1]" with value "user/b/c"'], []),
    ("base_model: ./local/path\n", "dataset", [], []),
    ("pipeline_tag: guessing\n", "model", [], ['The pipeline tag "guessing" is not in the official list']),
    (
        "task_categories:\n- guessing\n",
        "dataset",
        [],
        ['The task_categories "guessing" is not in the official'],
    ),
    ("size_categories:\n- huge\n", "dataset", ['"size_categories[0]" must be one of [n<1K'], []),
    ("sdk: static\ncolorFrom: mauve\n", "space", ['"colorFrom" must be one of [red'], []),
    (
        "model-index:\n- name: x\n  results:\n  - task:\n      type: y\nlicense: nonsense\n",
        "model",
        ['"license"'],
        [],
    ),
    ("license: [mit\n", "model", ["a bracket is not closed"], []),
    ("a: 1\na: 2\n", "model", ["duplicated mapping key"], []),
    (None, "model", [], ["empty or missing yaml metadata in repo card"]),
]


@pytest.mark.parametrize("metadata, kind, errors, warnings", METADATA)
def test_validate_yaml(hub, metadata, kind, errors, warnings):
    text = f"---\n{metadata}---\n# Title\n" if metadata else "# Title\n"
    answer = hub.request("POST", "/api/validate-yaml", {"content": text, "repoType": kind}, token=None)
    assert answer.status == (400 if errors else 200)
    for found, wanted in ((answer.json()["errors"], errors), (answer.json()["warnings"], warnings)):
        assert len(found) == len(wanted)
        assert all(item["message"].find(words) >= 0 for item, words in zip(found, wanted))
    assert hub.request("POST", "/api/validate-yaml", {"repoType": kind}, token=None).status == 400


@pytest.mark.parametrize("status", [400, 422])
def test_a_commit_with_wrong_metadata(hub, filled, status):
    hub.config(readme_status=status)
    text = '---\nbase_model: ""\n---\n'
    assert refused(hub, filled, status, add("README.md", text)) == '"base_model" is not allowed to be empty'
    assert send(hub, filled, add("d/README.md", text)).status == 200
    assert send(hub, filled, add("README.md", "---\npipeline_tag: guessing\n---\n")).status == 200
    assert send(hub, filled, add("README.md", "no metadata")).status == 200


# LFS


def batch(hub, repo, *sizes, **fields):
    items = [
        {"oid": hashlib.sha256(b"%d" % number).hexdigest(), "size": size} for number, size in enumerate(sizes)
    ]
    return hub.request(
        "POST",
        f"/{repo}.git/info/lfs/objects/batch",
        {"operation": "upload", "transfers": ["basic", "multipart"], "objects": items, **fields},
    )


def test_a_batch_has_a_limit(hub, repo):
    assert batch(hub, repo, *[1] * 256).status == 200
    answer = batch(hub, repo, *[1] * 257)
    assert answer.status == 413 and answer.json()["message"] == answer.json()["error"]
    for objects in ("nonsense", ["nonsense"]):
        assert batch(hub, repo, objects=objects).status == 422


def test_objects_have_a_limit(hub, repo):
    hub.config(max_file_size=1000, max_put_size=100)
    small, large = batch(hub, repo, 1000, 1001).json()["objects"]
    assert "actions" in small and large["error"]["code"] == 422 and "too large" in large["error"]["message"]
    answer = hub.request("PUT", small["actions"]["upload"]["href"], bytes(1000), token=None)
    assert answer.status == 400 and b"<Code>EntityTooLarge</Code>" in answer.body


def used_by(hub, namespace, private):
    """Bytes of the LFS objects of all private (or all public) repositories of a namespace."""
    repos = [
        repo
        for kind in ("models", "datasets", "spaces")
        for repo in hub.call("GET", f"/api/{kind}?author={namespace}&expand=private")
        if repo["private"] == private
    ]
    files = [
        path
        for repo in repos
        for path in pathlib.Path(hub.root, "lfs", repo["_id"]).rglob("*")
        if path.is_file()
    ]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("refusal", ["batch", "object"])
def test_storage_has_a_limit(hub, filled, private, refusal):
    other = filled.replace("user/model", "acme/full") + f"-{refusal}-{private}".lower()
    hub.create_repo(other, private=private)
    hub.commit(other, {"w.bin": CONTENT})
    quota = {"private" if private else "public": used_by(hub, "acme", private) + 100}
    hub.config(storage_quota=quota, storage_refusal=refusal)
    assert "actions" in batch(hub, other, 50, 50).json()["objects"][1]
    answer = batch(hub, other, 50, 51)
    words = "Private repository storage limit reached" if private else "Your storage patterns tripped"
    if refusal == "batch":
        assert answer.status == 403 and words in answer.json()["error"]
    else:
        assert [
            words in item["error"]["message"] and item["error"]["code"] == 403
            for item in answer.json()["objects"]
        ] == [True, True]
    known = {"oid": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    assert batch(hub, other, objects=[known]).json()["objects"] == [known]  # what is there needs no room
    hub.set_repo(other, private=not private)
    assert "actions" in batch(hub, other, 500).json()["objects"][0]  # the other kind of storage
    hub.set_repo(other, private=private)
    assert send(hub, other, add("small")).status == 200


def start_multipart(hub, repo, data, chunk=10):
    hub.config(multipart_threshold=0, chunk_size=chunk)
    item = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    upload = batch(hub, repo, objects=[item]).json()["objects"][0]["actions"]["upload"]
    urls = [url for key, url in sorted(upload["header"].items()) if key.isdigit()]
    return item["oid"], upload["href"], urls


def test_completion_is_exact(hub, repo):
    data = bytes(range(25))
    oid, href, urls = start_multipart(hub, repo, data)

    def complete(*etags, oid=oid):
        parts = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
        return hub.request("POST", href, {"oid": oid, "parts": parts}, token=None).status

    def put(number, content):
        return hub.request("PUT", urls[number - 1], content, token=None).headers["ETag"]

    first, second = put(1, data[:10]), put(2, data[10:20])
    assert complete(first, second, '"x"') == 400  # a part is missing
    short = put(3, data[20:24])
    assert complete(first, second, short) == 400  # it is too short
    third = put(3, data[20:])
    assert complete(first, second, short) == 400  # the ETag of what was there before
    assert complete(first, second) == 400
    assert complete(second, first, third) == 400
    assert complete(first, second, third, oid="0" * 64) == 400
    assert hub.request("PUT", urls[0], bytes(11), token=None).status == 400
    assert complete(put(1, bytes(10)), second, third) == 400  # other bytes: the digest is wrong
    assert complete(put(1, data[:10]), second, third) == 200
    assert complete(first, second, third) == 404  # the upload is over
    assert send(hub, repo, lfs("x.bin", data)).status == 200
