"""The switches of the test Hub: each answer that nobody has seen the real Hub give, one way and the other."""

import pathlib
import re
import subprocess
import sys

import pytest
from switches import SWITCHES

HUB = pathlib.Path(__file__).resolve().parent.parent / "hub"


def status_and_code(answer):
    return answer.status, answer.headers["X-Error-Code"]


def test_readme_lists_every_switch_with_its_answers():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ([\d.]+) \|", (HUB / "README.md").read_text(), re.M)
    listed = {name: (section, re.findall(r"`([^`]+)`", values)) for name, values, section in rows}
    wanted = {
        name: (item.section, [str(value) for value in (item.default, *item.others)])
        for name, item in SWITCHES.items()
    }
    assert listed == wanted


def test_every_switch_can_be_set_on_the_command_line():
    text = subprocess.run(
        [sys.executable, HUB, "--help"], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    for name in SWITCHES:
        assert "--" + name.replace("_", "-") in text


def test_a_switch_refuses_other_values(hub):
    for name, value in (("same_name", "both"), ("commits_first_page", True), ("no_such_switch", 1)):
        answer = hub.request("POST", "/_test/config", {name: value}, token=None)
        assert answer.status == 400 and name in answer.json()["error"]


def test_full_ref_names(hub, repo):
    target = f"{hub.api(repo)}/revision/refs%2Fheads%2Fmain"
    assert status_and_code(hub.request("GET", target)) == (404, "RevisionNotFound")
    hub.config(full_ref_names="accept")
    assert hub.call("GET", target)["sha"] == hub.head(repo)


def test_short_revisions(hub, repo):
    head = hub.head(repo)
    target = f"{hub.api(repo)}/revision/{head[:7]}"
    assert status_and_code(hub.request("GET", target)) == (404, "RevisionNotFound")
    hub.config(short_revisions="accept")
    assert hub.call("GET", target)["sha"] == head
    assert hub.request("GET", f"{hub.api(repo)}/revision/{head[:6]}").status == 404


def test_a_branch_and_a_tag_of_one_name(hub, repo):
    old = hub.head(repo)
    hub.tag(repo, "v1")
    hub.branch(repo, "v1")
    new = hub.commit(repo, {"a": b"a"}, branch="v1")
    assert hub.head(repo, "v1") == new
    hub.config(same_name="tag")
    assert hub.head(repo, "v1") == old


@pytest.mark.parametrize("first", [0, 1])
def test_first_page_of_commits(hub, repo, first):
    hub.config(commits_first_page=first)
    for number in range(3):
        hub.commit(repo, {"n": b"%d" % number})
    target, seen = f"{hub.api(repo)}/commits/main?limit=3", []
    while target:
        answer = hub.request("GET", target)
        seen += [item["id"] for item in answer.json()]
        link = re.match("<([^>]+)>", answer.headers["Link"] or "")
        target = link and link[1]
        assert target is None or target.endswith(f"p={first + 1}")
    assert seen == [oid for oid, _ in hub.history(repo)]
    again = hub.call("GET", f"{hub.api(repo)}/commits/main?limit=3&p={first}")
    assert [item["id"] for item in again] == seen[:3]


def test_compare(hub, repo):
    old = hub.head(repo)
    new = hub.commit(repo, {"ü.txt": b"one\n"})
    target = f"{hub.api(repo)}/compare/{old}..main"
    patch = hub.request("GET", target)
    assert "+++ b/ü.txt" in patch.body.decode() and patch.headers["Content-Type"].startswith("text/plain")
    raw = hub.request("GET", target + "?raw=true").body.decode()
    blob = hub.git(repo, "rev-parse", "main:ü.txt").decode().strip()
    assert raw == f":000000 100644 {'0' * 40} {blob} A\tü.txt\n"
    hub.config(compare_raw="patch")
    assert hub.request("GET", target + "?raw=true").body == patch.body
    assert hub.request("GET", f"{hub.api(repo)}/compare/{new}..{new}").body == b""
    answer = hub.request("GET", f"{hub.api(repo)}/compare/{old}..nowhere")
    assert status_and_code(answer) == (404, "RevisionNotFound")
    assert hub.request("GET", f"{hub.api(repo)}/compare/main").status == 400


@pytest.mark.parametrize("value, kind", [("annotated", b"tag"), ("light", b"commit")])
def test_tag_with_a_message(hub, repo, value, kind):
    hub.config(tag_message=value)
    hub.tag(repo, "v1", message="first")
    assert hub.git(repo, "cat-file", "-t", "refs/tags/v1").strip() == kind
    assert hub.call("GET", f"{hub.api(repo)}/refs")["tags"] == [
        {"name": "v1", "ref": "refs/tags/v1", "targetCommit": hub.head(repo)}
    ]
    assert hub.git(repo, "fsck", "--strict") == b""


def test_tree_limit(hub, repo):
    target = f"{hub.api(repo)}/tree/main?limit=1001"
    assert hub.request("GET", target).status == 200
    hub.config(tree_limit="refuse")
    assert hub.request("GET", target).status == 400
    assert hub.request("GET", f"{hub.api(repo)}/tree/main?limit=1000").status == 200


def test_the_root_in_paths_info(hub, repo):
    target, body = f"{hub.api(repo)}/paths-info/main", {"paths": [""], "expand": True}
    assert hub.call("POST", target, body) == []
    hub.config(root_info="describe")
    (item,) = hub.call("POST", target, body)
    tree = hub.git(repo, "rev-parse", "main^{tree}").decode().strip()
    assert (item["type"], item["oid"], item["path"]) == ("directory", tree, "")
    assert item["lastCommit"]["id"] == hub.head(repo)


def test_resolve_cache_of_a_private_repository(hub, repo):
    head = hub.commit(repo, {"a": b"a"})
    hub.set_repo(repo, private=True)
    target = f"/api/resolve-cache/models/{repo}/{head}/a"
    assert hub.request("GET", target).body == b"a"
    assert hub.request("GET", target, token="other").status == 404
    hub.config(private_resolve_cache="refuse")
    assert hub.request("GET", target).status == 403
    assert hub.request("GET", f"/{repo}/resolve/main/a").body == b"a"


def test_resolve_on_a_folder(hub, repo):
    hub.commit(repo, {"d/a": b"a"})
    target = f"/{repo}/resolve/main/d"
    assert status_and_code(hub.request("HEAD", target)) == (404, "EntryNotFound")
    hub.config(folder_resolve_status=400)
    assert status_and_code(hub.request("HEAD", target)) == (400, None)


def test_list_limit(hub):
    assert hub.request("GET", "/api/models?limit=1001").status == 200
    hub.config(list_limit="refuse")
    assert hub.request("GET", "/api/models?limit=1001").status == 400
    assert hub.request("GET", "/api/models?limit=1000").status == 200


@pytest.mark.parametrize("key", ["size", "totalSize"])
def test_key_of_treesize(hub, repo, key):
    hub.config(treesize_key=key)
    answer = hub.call("GET", f"{hub.api(repo)}/treesize/main")
    assert set(answer) == {"path", key} and answer[key] == len(hub.content(repo, ".gitattributes"))


def test_links_programs_and_modules_in_a_tree(hub, repo, git, tmp_path):
    """What only git can bring into a repository."""
    git("clone", f"{hub.endpoint}/{repo}".replace("//", f"//user:{hub.tokens['user']}@"), "clone")
    clone = tmp_path / "clone"
    (clone / "program").write_text("#!/bin/sh\n")
    (clone / "program").chmod(0o755)
    (clone / "link").symlink_to("program")
    git("add", ".", cwd=clone)
    git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module", cwd=clone)
    git("commit", "-m", "odd", cwd=clone)
    git("push", cwd=clone)

    def types():
        return {item["path"]: item["type"] for item in hub.call("GET", f"{hub.api(repo)}/tree/main")}

    assert types() == {".gitattributes": "file", "link": "file", "module": "unknown", "program": "file"}
    hub.config(symlink_type="unknown")
    assert types() == {".gitattributes": "file", "link": "unknown", "module": "unknown", "program": "file"}
