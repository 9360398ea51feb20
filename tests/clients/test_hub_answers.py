"""The Hub's answers header by header, with raw requests; what the official client does not show."""

import concurrent.futures
import hashlib
import json
import os
import re
import urllib.parse

import pytest
from client import HubError, quote


@pytest.fixture
def filled(hub, repo):
    hub.commit(repo, {"t.txt": b"0123456789", "w.bin": bytes(range(250)) * 4, "empty": b"", "d/x.txt": b"x"})
    return repo


def code(answer):
    return answer.status, answer.headers["X-Error-Code"]


def follow(hub, answer, **options):
    """The answer behind a redirect; the token goes along only on the Hub itself."""
    location = answer.headers["Location"]
    return hub.request("GET", location, token="user" if location.startswith("/") else None, **options)


# resolve

def test_regular_file_goes_by_a_relative_redirect(hub, filled):
    answer = hub.request("GET", f"/{filled}/resolve/main/t.txt")
    sha = hub.head(filled)
    assert answer.status == 307
    assert answer.headers["Location"].startswith(f"/api/resolve-cache/models/{filled}/{sha}/t.txt?%2Fuser%2F")
    assert answer.headers["X-Repo-Commit"] == sha
    oid = hub.git(filled, "rev-parse", "main:t.txt").decode().strip()
    assert answer.headers["ETag"] == f'"{oid}"'
    for query in ("", "?" + answer.headers["Location"].partition("?")[2]):
        final = hub.request("GET", f"/api/resolve-cache/models/{filled}/{sha}/t.txt{query}")
        assert (final.status, final.body, final.headers["ETag"]) == (200, b"0123456789", f'"{oid}"')
        assert final.headers["X-Repo-Commit"] == sha


def test_lfs_file_goes_to_the_other_host(hub, filled):
    answer = hub.request("HEAD", f"/{filled}/resolve/main/w.bin")
    sha256 = hashlib.sha256(bytes(range(250)) * 4).hexdigest()
    assert answer.status == 302
    assert answer.headers["Location"].startswith(hub.data + "/")
    assert urllib.parse.urlsplit(hub.data).hostname == "localhost"
    assert answer.headers["X-Linked-ETag"] == f'"{sha256}"'
    assert answer.headers["X-Linked-Size"] == "1000"
    assert answer.headers["X-Repo-Commit"] == hub.head(filled)
    final = follow(hub, answer)
    assert final.body == bytes(range(250)) * 4
    assert re.fullmatch(r'"[0-9a-f]{64}"', final.headers["ETag"]) and sha256 not in final.headers["ETag"]


def test_private_and_empty_files_are_answered_directly(hub, filled):
    assert hub.request("GET", f"/{filled}/resolve/main/empty").status == 200
    hub.set_repo(filled, private=True)
    answer = hub.request("GET", f"/{filled}/resolve/main/t.txt")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert hub.request("GET", f"/{filled}/resolve/main/w.bin").status == 302


@pytest.mark.parametrize("name", ["t.txt", "w.bin"])
def test_if_none_match(hub, filled, name):
    target = f"/{filled}/resolve/main/{name}"
    etag = hub.request("HEAD", target).headers["ETag"]
    for value in (etag, f'"x", W/{etag}'):
        answer = hub.request("GET", target, headers={"If-None-Match": value})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert hub.request("GET", target, headers={"If-None-Match": '"other"'}).status in (302, 307)


@pytest.mark.parametrize("name, size", [("t.txt", 10), ("w.bin", 1000)])
def test_ranges(hub, filled, name, size):
    whole = hub.content(filled, name)
    first = hub.request("GET", f"/{filled}/resolve/main/{name}")
    for header, start, end in (("0-0", 0, 1), ("3-6", 3, 7), (f"5-{size + 50}", 5, size), ("4-", 4, size),
                               ("-2", size - 2, size)):
        answer = follow(hub, first, headers={"Range": "bytes=" + header})
        assert (answer.status, answer.body) == (206, whole[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
    answer = follow(hub, first, headers={"Range": f"bytes={size}-"})
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert follow(hub, first).headers["Content-Length"] == str(size)


def test_missing_things_have_codes(hub, filled):
    answer = hub.request("GET", f"/{filled}/resolve/main/missing")
    assert code(answer) == (404, "EntryNotFound")
    assert answer.headers["X-Repo-Commit"] == hub.head(filled)
    assert code(hub.request("HEAD", f"/{filled}/resolve/main/d")) == (404, "EntryNotFound")
    assert code(hub.request("GET", f"/{filled}/resolve/nowhere/t.txt")) == (404, "RevisionNotFound")
    assert code(hub.request("GET", "/user/unknown/resolve/main/t.txt")) == (404, "RepoNotFound")
    assert code(hub.request("GET", "/user/unknown/resolve/main/t.txt", token=None)) == (401, "RepoNotFound")
    answer = hub.request("GET", f"/{filled}/resolve/main/t.txt", token="hf_wrong")
    assert (answer.status, answer.json()["error"]) == (401, "Invalid credentials in Authorization header")


def test_raw_gives_the_pointer(hub, filled):
    pointer = hub.blob(filled, "w.bin")
    answer = hub.request("GET", f"/{filled}/raw/main/w.bin")
    assert answer.body == pointer
    again = hub.request("GET", f"/{filled}/raw/main/w.bin", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 200
    part = hub.request("GET", f"/{filled}/raw/main/w.bin", headers={"Range": "bytes=0-6"})
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"version", f"bytes 0-6/{len(pointer)}")


def test_head_is_the_default_branch(hub, filled):
    """What @huggingface/hub asks for when no revision is given."""
    assert hub.head(filled, "HEAD") == hub.head(filled, "main")


def test_encoded_revisions_are_one_segment(hub, filled):
    hub.branch(filled, "a/b")
    head = hub.commit(filled, {"only-here": b"!"}, branch="a/b")
    assert hub.call("GET", f"{hub.api(filled)}/revision/a%2Fb")["sha"] == head
    assert hub.request("GET", f"{hub.api(filled)}/revision/a/b").status == 404
    answer = hub.request("GET", f"{hub.api(filled)}/revision/a%252Fb")
    assert code(answer) == (404, "RevisionNotFound")
    assert follow(hub, hub.request("GET", f"/{filled}/resolve/a%2Fb/only-here")).body == b"!"
    paths = {item["path"] for item in hub.call("GET", f"{hub.api(filled)}/tree/a%2Fb?recursive=true")}
    assert {"d", "d/x.txt", "only-here"} <= paths
    for spelling in ("d/", "d", quote("d/x.txt").rpartition("%2F")[0]):
        assert [item["path"] for item in hub.call("GET", f"{hub.api(filled)}/tree/main/{spelling}")] == ["d/x.txt"]


# Listings

def test_tree_pages_by_absolute_links(hub, repo):
    hub.commit(repo, {f"d{n % 3}/f{n:02}": b"x" for n in range(20)})
    target, seen, pages = f"{hub.api(repo)}/tree/main?recursive=true&limit=7", [], 0
    while target:
        answer = hub.request("GET", target)
        seen += [item["path"] for item in answer.json()]
        pages += 1
        link = answer.headers["Link"]
        assert link is None or link.startswith(f"<{hub.endpoint}/api/models/")
        target = link and re.fullmatch(r'<([^>]+)>; rel="next"', link)[1]
    assert (pages, len(seen), len(set(seen))) == (4, 24, 24)


def test_pages_of_one_listing_are_of_one_commit(hub, repo):
    hub.commit(repo, {f"f{n}": b"x" for n in range(5)})
    answer = hub.request("GET", f"{hub.api(repo)}/tree/main?limit=3")
    hub.commit(repo, {"a0": b"new", "f4": None})
    rest = hub.call("GET", re.match("<([^>]+)>", answer.headers["Link"])[1])
    assert [item["path"] for item in rest] == ["f2", "f3", "f4"]


def test_paths_info_in_both_encodings(hub, filled):
    target = f"{hub.api(filled)}/paths-info/main"
    by_json = hub.call("POST", target, {"paths": ["t.txt", "no", "d"], "expand": False})
    by_form = hub.call("POST", target, urllib.parse.urlencode({"paths": ["t.txt", "no", "d"]}, True),
                       {"Content-Type": "application/x-www-form-urlencoded"})
    assert by_json == by_form
    assert [item["path"] for item in by_json] == ["t.txt", "d"]
    assert hub.request("POST", target, {"paths": ["t.txt"]}).status == 400
    many = urllib.parse.urlencode([("paths", str(n)) for n in range(1001)])
    assert hub.request("POST", target, many).status == 413


def test_info_can_be_reduced_to_the_head(hub, filled):
    info = hub.call("GET", f"{hub.api(filled)}?expand=sha")
    assert set(info) == {"_id", "id", "modelId", "sha"}
    assert re.fullmatch("[0-9a-f]{24}", info["_id"])
    assert hub.request("GET", f"{hub.api(filled)}?expand=nonsense").status == 400
    total = hub.call("GET", f"{hub.api(filled)}/treesize/main")["size"]
    assert total == hub.call("GET", f"{hub.api(filled)}?expand=usedStorage")["usedStorage"]


@pytest.mark.parametrize("rest", ["/tree/main?cursor=x", "/tree/main?limit=x", "/commits/main?p=-1"])
def test_nonsense_in_the_query_is_refused(hub, repo, rest):
    assert hub.request("GET", hub.api(repo) + rest).status == 400


@pytest.mark.parametrize("rev", ["..%2F..%2Fconfig", "%00", "x" * 300, "refs%2Fheads%2Fmain", "HEAD~1"])
def test_odd_revisions_are_unknown(hub, repo, rev):
    assert code(hub.request("GET", f"{hub.api(repo)}/revision/{rev}")) == (404, "RevisionNotFound")


def test_commit_count_is_in_a_header(hub, filled):
    answer = hub.request("GET", f"{hub.api(filled)}/commits/main?limit=1")
    assert (answer.headers["X-Total-Count"], len(answer.json())) == ("2", 1)


def test_every_answer_has_the_hub_headers(hub, filled):
    for target in ("/api/whoami-v2", f"/{filled}/resolve/main/t.txt", f"/{filled}", "/api/models/user/unknown"):
        headers = hub.request("GET", target).headers
        assert re.fullmatch(r'"(api|resolvers|pages)";r=\d+;t=\d+', headers["RateLimit"])
        assert headers["RateLimit-Policy"].startswith('"fixed window";"')
        assert headers["X-Request-Id"]


def test_disabled_repo(hub, filled):
    hub.set_repo(filled, disabled=True)
    answer = hub.request("GET", hub.api(filled))
    assert (answer.status, answer.headers["X-Error-Message"]) == (403, "Access to this resource is disabled.")


def test_who_may_write(hub, repo):
    for token, status in ((None, 401), ("other", 403), ("reader", 403), ("user", 200)):
        assert hub.request("GET", f"{hub.api(repo)}/auth-check/write", token=token).status == status
        batch = {"operation": "upload", "objects": []}
        assert hub.request("POST", f"/{repo}.git/info/lfs/objects/batch", batch, token=token).status == status
    proposal = {"operation": "upload", "ref": {"name": "refs/pr/1"}, "objects": []}
    hub.commit(repo, {"p": b"p"}, token="other", create_pr=True)
    assert hub.request("POST", f"/{repo}.git/info/lfs/objects/batch", proposal, token="other").status == 403
    hub.create_repo(repo.replace("user/", "acme/"), private=True)
    assert hub.request("GET", f"{hub.api(repo.replace('user/', 'acme/'))}/auth-check", token="reader").status == 200


# The data origin

@pytest.mark.parametrize("header", [{"Authorization": "Bearer x"}, {"Cookie": "token=x"}])
def test_data_origin_refuses_credentials(hub, filled, header):
    url = hub.request("GET", f"/{filled}/resolve/main/w.bin").headers["Location"]
    answer = hub.request("GET", url + "&leak-on-purpose=1", headers=header, token=None)
    assert answer.status == 403
    assert b"<Code>AccessDenied</Code>" in answer.body


def test_data_origin_checks_the_signature(hub, filled):
    url = hub.request("GET", f"/{filled}/resolve/main/w.bin").headers["Location"]
    assert hub.request("GET", url, token=None).status == 200
    assert hub.request("HEAD", url, token=None).headers["Content-Length"] == "1000"
    for broken in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("%20", "+"), url.partition("?")[0]):
        answer = hub.request("GET", broken, token=None)
        assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
    assert hub.request("PUT", url, b"x", token=None).status == 403


@pytest.mark.parametrize("style", ["s3", "cloudfront"])
@pytest.mark.parametrize("body", ["s3", "cloudfront"])
def test_expired_signature(hub, filled, style, body):
    hub.config(signature_style=style, expired_body=body)
    url = hub.request("GET", f"/{filled}/resolve/main/w.bin").headers["Location"]
    assert ("X-Amz-Date=" in url, "&Expires=" in url.replace("?", "&")) == (style == "s3", style == "cloudfront")
    assert hub.request("GET", url, token=None).body == hub.content(filled, "w.bin")
    assert hub.request("GET", url.replace("ignature=", "ignature=0"), token=None).status == 403
    for settings in ({"signature_lifetime_s": 0}, {"signature_lifetime_s": 60, "signature_age_s": 60}):
        hub.config(**settings)
        url = hub.request("GET", f"/{filled}/resolve/main/w.bin").headers["Location"]
        answer = hub.request("GET", url, token=None)
        assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
        assert (b"<Message>Request has expired</Message>" in answer.body) == (body == "s3")


def test_upload_urls_have_a_lifetime_of_their_own(hub, repo):
    assert "X-Amz-Expires=900&" in upload_action(hub, repo, b"x")["actions"]["upload"]["href"]
    hub.config(upload_lifetime_s=0, multipart_threshold=10, chunk_size=10)
    basic = upload_action(hub, repo, b"content")["actions"]["upload"]["href"]
    part = upload_action(hub, repo, bytes(25))["actions"]["upload"]["header"]["00002"]
    for url in (basic, part):
        answer = hub.request("PUT", url, b"content", token=None)
        assert answer.status == 403 and b"Request has expired" in answer.body
    hub.config(upload_lifetime_s=60)
    assert hub.request("PUT", upload_action(hub, repo, b"content")["actions"]["upload"]["href"], b"content",
                       token=None).status == 200


def upload_action(hub, repo, data, **fields):
    item = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [item], **fields}
    return hub.call("POST", f"/{repo}.git/info/lfs/objects/batch", body)["objects"][0]


def test_upload_is_compared_with_its_digest(hub, repo):
    actions = upload_action(hub, repo, b"content")["actions"]
    verify = {"oid": hashlib.sha256(b"content").hexdigest(), "size": 7}
    assert hub.request("PUT", actions["upload"]["href"], b"CONTENT", token=None).status == 400
    assert hub.request("PUT", actions["upload"]["href"], b"content!", token=None).status == 400
    assert hub.request("POST", actions["verify"]["href"], verify).status == 404
    assert hub.request("PUT", actions["upload"]["href"], iter([b"content"]), token=None).status == 411
    assert hub.request("PUT", actions["upload"]["href"], b"content", token=None).status == 200
    assert hub.request("POST", actions["verify"]["href"], verify).status == 200
    assert hub.request("POST", actions["verify"]["href"], {**verify, "size": 8}).status == 422
    assert "actions" not in upload_action(hub, repo, b"content")
    assert hub.request("PUT", upload_action(hub, repo, b"")["actions"]["upload"]["href"], b"", token=None).status == 501


def test_multipart_wants_all_parts_with_their_etags(hub, repo):
    hub.config(multipart_threshold=10, chunk_size=10)
    data = bytes(range(25))
    upload = upload_action(hub, repo, data)["actions"]["upload"]
    urls = {int(key): url for key, url in upload["header"].items() if key.isdigit()}
    assert (upload["header"]["chunk_size"], sorted(urls)) == ("10", [1, 2, 3])
    etags = {n: hub.request("PUT", url, data[(n - 1) * 10 : n * 10], token=None).headers["ETag"]
             for n, url in sorted(urls.items(), reverse=True)}
    oid = hashlib.sha256(data).hexdigest()
    parts = [{"partNumber": n, "etag": etags[n]} for n in (1, 2, 3)]
    wrong = [{**parts[0], "etag": etags[2]}, *parts[1:]]
    for bad in (parts[:2], parts[::-1], wrong):
        assert hub.request("POST", upload["href"], {"oid": oid, "parts": bad}, token=None).status == 400
    assert hub.request("POST", upload["href"], {"oid": oid, "parts": parts}, token=None).status == 200
    assert "actions" not in upload_action(hub, repo, data)
    assert hub.request("POST", upload["href"], {"oid": oid, "parts": parts}, token=None).status == 404


def test_batch_download_and_errors(hub, filled):
    oid = hashlib.sha256(hub.content(filled, "w.bin")).hexdigest()
    body = {"operation": "download", "objects": [{"oid": oid, "size": 1000}, {"oid": "0" * 64, "size": 1},
                                                 {"oid": "nonsense", "size": 1}]}
    found, missing, bad = hub.call("POST", f"/{filled}.git/info/lfs/objects/batch", body, token=None)["objects"]
    assert hub.request("GET", found["actions"]["download"]["href"], token=None).body == hub.content(filled, "w.bin")
    assert (missing["error"]["code"], bad["error"]["code"]) == (404, 422)


def test_sparse_object(hub, repo):
    stored = hub.lfs_sparse(repo, "huge.bin", 10_000_000_000, {5_000_000_000: b"seed"})
    assert hub.head(repo) == stored["commit"]
    answer = hub.request("GET", f"/{repo}/resolve/main/huge.bin")
    assert answer.headers["X-Linked-Size"] == "10000000000"
    part = follow(hub, answer, headers={"Range": "bytes=4999999999-5000000004"})
    assert part.body == b"\0seed\0"
    assert hub.requests()[-1]["sent"] == 6


# Preupload and commit

def test_preupload_judges(hub, repo):
    hub.commit(repo, {"old.txt": b"old", "old.bin": b"\0", ".gitignore": b"*.log\n!keep.log\nbuild/\n"})
    cases = {"a.txt": ("", "regular"), "saved_model/1/x": ("", "lfs"), "deep/x.tar.gz": ("", "lfs"),
             "tfevents.1": ("", "lfs"), "big.txt": ("YQ==", "lfs"), "big.dat": ("AA==", "lfs")}
    sizes = {"big.txt": 5_000_001, "big.dat": 1_000_001}
    names = [*cases, "old.txt", "old.bin", "x.log", "keep.log", "build/y"]
    files = [{"path": name, "size": sizes.get(name, 3), "sample": cases.get(name, ("",))[0]} for name in names]
    target = f"{hub.api(repo)}/preupload/main"
    answer = hub.call("POST", target, {"files": files})
    found = {item["path"]: item for item in answer["files"]}
    assert {name: found[name]["uploadMode"] for name in cases} == {name: mode for name, (_, mode) in cases.items()}
    assert [name for name in names if found[name]["shouldIgnore"]] == ["x.log", "build/y"]
    assert found["old.txt"]["oid"] == hub.git(repo, "rev-parse", "main:old.txt").decode().strip()
    assert found["old.bin"]["oid"] == hashlib.sha256(b"\0").hexdigest()
    assert "oid" not in found["a.txt"]
    assert answer["commitOid"] == hub.head(repo)
    assert not hub.call("POST", target, {"files": files[-3:], "gitIgnore": ""})["files"][0]["shouldIgnore"]
    given = hub.call("POST", target, {"files": files[:1], "gitAttributes": "a.* filter=lfs\n"})
    assert given["files"][0]["uploadMode"] == "lfs"
    for path in ("..\\x", "../x", "/x", "a//b", "", "a/.git/b"):
        assert hub.request("POST", target, {"files": [{"path": path, "size": 1, "sample": ""}]}).status == 422


def lines(*operations, **header):
    return [{"key": "header", "value": {"summary": "s", "description": "", **header}},
            *({"key": key, "value": value} for key, value in operations)]


def test_commit_lines_are_applied_in_order(hub, filled):
    hub.commit_lines(filled, lines(
        ("deletedFolder", {"path": "d/"}), ("file", {"path": "d/new.txt", "content": "utf-8 ü"}),
        ("file", {"path": "tmp", "content": "eA==", "encoding": "base64"}), ("deletedFile", {"path": "tmp"}),
        ("deletedEntry", {"path": "empty"}), ("file", {"path": "moved.txt", "oldPath": "t.txt"}),
        ("lfsFile", {"path": "moved.bin", "oldPath": "w.bin", "size": 1000})))
    assert sorted(hub.paths(filled)) == [".gitattributes", "d/new.txt", "moved.bin", "moved.txt"]
    assert hub.content(filled, "d/new.txt") == "utf-8 ü".encode()
    assert hub.content(filled, "moved.txt") == b"0123456789"
    assert hub.content(filled, "moved.bin") == bytes(range(250)) * 4


def test_lfs_copy_needs_no_size(hub, filled):
    oid = hashlib.sha256(bytes(range(250)) * 4).hexdigest()
    hub.commit_lines(filled, lines(("lfsFile", {"path": "copy.dat", "algo": "sha256", "oid": oid})))
    assert hub.blob(filled, "copy.dat") == hub.blob(filled, "w.bin")
    assert b"copy.dat filter=lfs" in hub.blob(filled, ".gitattributes")


@pytest.mark.parametrize("operation, status", [
    (("deletedFile", {"path": "missing"}), 404),
    (("deletedFolder", {"path": "missing"}), 404),
    (("file", {"path": "t.txt/below", "content": ""}), 400),
    (("file", {"path": "d", "content": ""}), 400),
    (("file", {"path": "..\\x", "content": ""}), 422),
    (("file", {"path": "x", "content": "%", "encoding": "base64"}), 400),
    (("lfsFile", {"path": "x", "algo": "sha256", "oid": "0" * 64, "size": 1}), 400),
    (("file", {"path": "x", "oldPath": "missing"}), 404),
    (("lfsFile", {"path": "x", "oldPath": "d"}), 404),
    (("unknown", {"path": "x"}), 400),
    (("file", {"path": "README.md", "content": "---\nx: [\n---\n"}), 400),
])
def test_refused_commits_change_nothing(hub, filled, operation, status):
    head = hub.head(filled)
    with pytest.raises(HubError) as error:
        hub.commit_lines(filled, lines(("file", {"path": "ok", "content": "ok"}), operation))
    assert error.value.status == status
    assert isinstance(json.loads(error.value.body), dict)
    assert hub.head(filled) == head
    if status == 404:
        assert error.value.headers["X-Error-Code"] == "EntryNotFound"


def test_commit_without_operations_or_summary(hub, repo):
    ok = ("file", {"path": "ok", "content": "ok"})
    for body in (lines(), lines(ok, summary=" "), lines(ok)[1:]):
        with pytest.raises(HubError, match="400"):
            hub.commit_lines(repo, body)


def test_chunked_commit_is_refused(hub, repo):
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines(("file", {"path": "a", "content": ""})))
    answer = hub.request("POST", f"{hub.api(repo)}/commit/main", iter([body]))
    assert (answer.status, answer.json()["error"][:19]) == (400, "Add a line with the")


def test_parallel_commits_are_serialized(hub, repo):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: hub.commit(repo, {f"f{n}": b"%d" % n}), range(24)))
    assert len(hub.history(repo)) == 25
    assert len(hub.paths(repo)) == 25


# The record

def test_record(hub, filled):
    since = hub.last_seq()
    hub.request("GET", f"/{filled}/resolve/main/w.bin?x=%20", headers={"Range": "bytes=1-2"}, token=None)
    hub.request("GET", "/_test/config", token=None)
    hub.wait_for(lambda seen: seen and seen[-1]["end"], since=since)
    item, = hub.requests(since)
    assert (item["origin"], item["method"], item["path"], item["query"]) == (
        "hub", "GET", f"/{filled}/resolve/main/w.bin", "x=%20")
    assert (item["range"], item["token"], item["status"], item["received"]) == ("bytes=1-2", False, 302, 0)
    assert item["sent"] > 0 and item["start"] <= item["end"]


def test_wrong_controls_are_refused(hub):
    for path, body in (("config", {"x": 1}), ("config", {"page_size": "3"}), ("config", {"rate_quota": {"x": 1}}),
                       ("config", {"gzip": "zip"}), ("config", {"chunk_size": 1.5}), ("config", {"repo": {"id": "no/such"}}), ("nonsense", {})):
        assert hub.request("POST", "/_test/" + path, body, token=None).status in (400, 404)
