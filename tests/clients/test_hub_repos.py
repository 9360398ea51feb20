"""Repositories as such: create, delete, move and its redirects, settings, duplicate, lists."""

import concurrent.futures
import hashlib
import json
import os
import re

import pytest
from client import HubError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

WEIGHTS = bytes(range(256)) * 5


def code(answer):
    return answer.status, answer.headers["X-Error-Code"]


def named(repo_id, **more):
    namespace, _, name = repo_id.partition("/")
    return {"name": name, "organization": namespace, **more}


def pages(hub, target, token="user"):
    """All items of a listing, followed by its links."""
    found = []
    while target:
        answer = hub.request("GET", target, token=token)
        assert answer.status == 200
        found += answer.json()
        link = re.match("<([^>]+)>", answer.headers["Link"] or "")
        target = link and link[1]
    return found


def move(hub, old, new, token="user", type="model"):
    return hub.request("POST", "/api/repos/move", {"fromRepo": old, "toRepo": new, "type": type}, token=token)


# Create


def test_create_with_first_files(hub, new_id):
    files = [{"path": "a.txt", "content": "ä"}, {"path": "d/b.bin", "content": "AAE=", "encoding": "base64"}]
    answer = hub.call("POST", "/api/repos/create", named(new_id, license="mit", files=files))
    assert answer["url"] == f"{hub.endpoint}/{new_id}"
    assert hub.paths(new_id) == [".gitattributes", "README.md", "a.txt", "d/b.bin"]
    assert (hub.content(new_id, "a.txt"), hub.content(new_id, "d/b.bin")) == ("ä".encode(), b"\0\1")
    assert hub.content(new_id, "README.md") == b"---\nlicense: mit\n---\n"
    assert [title for _, title in hub.history(new_id)] == ["initial commit"]
    assert hub.git(new_id, "fsck", "--strict") == b""


@pytest.mark.parametrize(
    "change, status",
    [
        ({"name": "-x"}, 400),
        ({"name": "a--b"}, 400),
        ({"name": "x.git"}, 400),
        ({"name": "x" * 97}, 400),
        ({"name": ""}, 400),
        ({"type": "bucket"}, 400),
        ({"visibility": "protected"}, 400),
        ({"type": "space", "sdk": "perl"}, 400),
        ({"files": [{"path": "../x", "content": ""}]}, 400),
        ({"files": [{"path": "x", "content": "?", "encoding": "base64"}]}, 400),
        ({"organization": "other"}, 403),
        ({"organization": "nobody"}, 403),
    ],
)
def test_create_refuses(hub, new_id, change, status):
    answer = hub.request("POST", "/api/repos/create", {**named(new_id), **change})
    assert answer.status == status and isinstance(answer.json()["error"], str)
    assert hub.request("POST", "/api/repos/create", named(new_id), token=None).status == 401


def test_existing_repository_answers_its_address(hub, repo):
    answer = hub.request("POST", "/api/repos/create", named(repo.upper()))
    assert (answer.status, answer.json()["url"]) == (409, f"{hub.endpoint}/{repo}")


def test_a_namespace_has_one_spelling(hub, new_id):
    hub.call("POST", "/api/repos/create", named(new_id.replace("user", "USER")))
    assert hub.call("GET", hub.api(new_id))["id"] == new_id


@pytest.mark.parametrize(
    "value, files", [("none", [".gitattributes"]), ("written", [".gitattributes", "README.md"])]
)
def test_readme_of_a_space(hub, api, new_id, value, files):
    hub.config(space_readme=value)
    api.create_repo(new_id, repo_type="space", space_sdk="docker", visibility="protected")
    assert hub.paths(new_id, type="space") == files
    assert api.space_info(new_id).sdk == "docker"
    assert hub.request("GET", hub.api(new_id, "space"), token="other").status == 404


# Delete


@pytest.mark.parametrize(
    "form",
    [
        lambda repo: named(repo),
        lambda repo: named(repo, type="model"),
        lambda repo: {"name": repo},
        lambda repo: {"name": repo.split("/")[1]},
        lambda repo: {"name": repo.split("/")[1], "organization": None, "type": None},
    ],
)
def test_delete_in_every_form(hub, repo, form):
    folder = os.path.realpath(hub.git_dir(repo))
    assert hub.request("DELETE", "/api/repos/delete", form(repo)).status == 200
    assert code(hub.request("GET", hub.api(repo))) == (404, "RepoNotFound")
    assert not os.path.exists(folder) and not os.path.lexists(hub.git_dir(repo))
    assert code(hub.request("DELETE", "/api/repos/delete", form(repo))) == (404, "RepoNotFound")


def test_delete_refuses(hub, repo):
    assert code(hub.request("DELETE", "/api/repos/delete", named(repo), token=None)) == (401, None)
    for token in ("other", "reader"):
        assert hub.request("DELETE", "/api/repos/delete", named(repo), token=token).status == 403
    assert code(hub.request("DELETE", "/api/repos/delete", named(repo, type="dataset"))) == (
        404,
        "RepoNotFound",
    )
    assert hub.request("DELETE", "/api/repos/delete", b"not json").status == 400
    hub.set_repo(repo, private=True)
    assert code(hub.request("DELETE", "/api/repos/delete", named(repo), token="other")) == (
        404,
        "RepoNotFound",
    )
    assert hub.request("GET", hub.api(repo)).status == 200


def test_deleted_while_others_work_with_it(hub, repo):
    """Whoever comes too late has a 404, and nothing of the repository comes back."""
    hub.commit(repo, {f"d{n}/f": b"%d" % n for n in range(50)})
    folder = os.path.realpath(hub.git_dir(repo))

    def work(number):
        if number == 20:
            return hub.request("DELETE", "/api/repos/delete", named(repo)).status
        if number % 2:
            lines = [
                {"key": "header", "value": {"summary": "s"}},
                {"key": "file", "value": {"path": "x", "content": str(number)}},
            ]
            return hub.request(
                "POST", f"{hub.api(repo)}/commit/main", "\n".join(map(json.dumps, lines)).encode()
            ).status
        return hub.request("GET", f"{hub.api(repo)}/tree/main?recursive=true&expand=true").status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(work, range(40)))
    assert seen[20] == 200 and {200, 404} <= set(seen) <= {200, 404, 409}
    assert not os.path.exists(folder + "/hub.json") and not os.path.lexists(hub.git_dir(repo))


def test_a_repository_made_again_is_another_one(hub, repo):
    hub.commit(repo, {"w.bin": WEIGHTS})
    uid = hub.call("GET", hub.api(repo))["_id"]
    hub.delete_repo(repo)
    hub.create_repo(repo)
    assert hub.call("GET", hub.api(repo))["_id"] != uid
    batch = {
        "operation": "download",
        "objects": [{"oid": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS)}],
    }
    (item,) = hub.call("POST", f"/{repo}.git/info/lfs/objects/batch", batch)["objects"]
    assert item["error"]["code"] == 404


# Move


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space", "kernel"])
def test_move_by_the_official_client(hub, api, new_id, repo_type):
    hub.create_repo(new_id, repo_type)
    head = hub.commit(new_id, {"a.txt": b"a", "w.bin": WEIGHTS}, type=repo_type)
    moved = new_id.replace("user/", "acme/moved-")
    api.move_repo(new_id, moved, repo_type=repo_type)
    for name in (moved, new_id):
        info = api.repo_info(name, repo_type=repo_type)
        assert (info.id, info.sha) == (moved, head)
        with open(api.hf_hub_download(name, "w.bin", repo_type=repo_type), "rb") as file:
            assert file.read() == WEIGHTS
        assert [item.path for item in api.get_paths_info(name, ["a.txt"], repo_type=repo_type)] == ["a.txt"]
    api.upload_file(path_or_fileobj=b"\0" * 2000, path_in_repo="new.bin", repo_id=new_id, repo_type=repo_type)
    api.upload_file(path_or_fileobj=b"text", path_in_repo="new.txt", repo_id=new_id, repo_type=repo_type)
    api.create_branch(new_id, branch="dev", repo_type=repo_type)
    assert hub.content(moved, "new.bin", type=repo_type) == b"\0" * 2000
    assert hub.content(moved, "new.txt", "dev", type=repo_type) == b"text"


def test_an_old_name_is_redirected_on_every_route(hub, repo):
    """Status, a relative Location with the query kept, and no answer in place of it."""
    hub.commit(repo, {"a.txt": b"a"})
    moved = repo + "-moved"
    assert move(hub, repo, moved).status == 200
    api = hub.api(repo)
    head = hub.head(moved)
    routes = [
        ("GET", api),
        ("GET", api + "/refs?include_prs=1"),
        ("GET", api + "/tree/refs%2Fpr%2F1/d%2Fe?recursive=true"),
        ("POST", api + "/paths-info/main"),
        ("POST", api + "/preupload/main?create_pr=1"),
        ("POST", api + "/commit/main"),
        ("PUT", api + "/settings"),
        ("POST", api + "/discussions"),
        ("POST", api + "/branch/x"),
        ("DELETE", api + "/tag/x"),
        ("GET", api + "/no/such/route"),
        ("GET", f"/api/resolve-cache/models/{repo}/{head}/a.txt"),
        ("GET", f"/{repo}/resolve/main/a.txt?x=%20y"),
        ("HEAD", f"/{repo}/resolve/main/a.txt"),
        ("GET", f"/{repo}/raw/main/a.txt"),
        ("GET", f"/{repo}.git/info/refs?service=git-upload-pack"),
        ("POST", f"/{repo}.git/git-upload-pack"),
        ("POST", f"/{repo}.git/info/lfs/objects/batch"),
        ("GET", f"/{repo}"),
    ]
    for status in (307, 308, 301, 302):
        hub.config(rename_status=status)
        for method, target in routes:
            answer = hub.request(method, target, b"{}" if method in ("POST", "PUT") else None)
            assert answer.status == status, target
            assert answer.headers["Location"] == target.replace(repo, moved)
            assert answer.headers["Content-Type"].startswith("text/plain") and answer.headers["RateLimit"]
            if method == "GET":
                assert (
                    answer.body
                    == f"Temporary Redirect. Redirecting to {target.replace(repo, moved)}".encode()
                )


def test_a_redirected_commit_keeps_method_and_body(hub, repo):
    move(hub, repo, repo + "-moved")
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "file", "value": {"path": "x", "content": "x"}},
    ]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    answer = hub.request("POST", f"{hub.api(repo)}/commit/main", body)
    assert answer.status == 307
    assert hub.request("POST", answer.headers["Location"], body).status == 200
    assert hub.content(repo + "-moved", "x") == b"x"


@pytest.mark.parametrize("hops, steps", [("each", 2), ("last", 1)])
def test_a_chain_of_moves(hub, repo, hops, steps):
    hub.config(rename_hops=hops)
    names = [repo, repo + "-b", "acme/" + repo.split("/")[1] + "-c"]
    for old, new in zip(names, names[1:]):
        assert move(hub, old, new).status == 200
    target, seen = hub.api(repo), 0
    while (answer := hub.request("GET", target)).status == 307:
        target, seen = answer.headers["Location"], seen + 1
    assert (seen, answer.json()["id"]) == (steps, names[-1])


def test_moved_back(hub, repo):
    move(hub, repo, repo + "-b")
    assert move(hub, repo + "-b", repo).status == 200
    assert hub.request("GET", hub.api(repo)).status == 200
    answer = hub.request("GET", hub.api(repo + "-b"))
    assert (answer.status, answer.headers["Location"]) == (307, hub.api(repo))


def test_a_new_repository_of_the_old_name_ends_the_redirect(hub, repo):
    first, second, third = repo, repo + "-b", repo + "-c"
    move(hub, first, second)
    move(hub, second, third)
    hub.create_repo(second)
    assert hub.call("GET", hub.api(second))["id"] == second
    answer = hub.request("GET", hub.api(first))
    assert answer.headers["Location"] == hub.api(third)
    hub.delete_repo(second)
    assert code(hub.request("GET", hub.api(second))) == (404, "RepoNotFound")
    hub.delete_repo(third)
    hub.create_repo(third)
    assert code(hub.request("GET", hub.api(first))) == (404, "RepoNotFound")


def test_move_refuses(hub, repo, new_id):
    hub.create_repo(new_id)
    assert move(hub, repo, new_id).status == 409
    assert move(hub, repo, "other/x").status == 403
    assert move(hub, repo, "user/x--y").status == 400
    assert move(hub, repo, "oneword").status == 400
    assert move(hub, repo, repo + "-b", token="other").status == 403
    assert move(hub, repo, repo + "-b", token=None).status == 401
    assert move(hub, repo, repo + "-b", type="thing").status == 400
    assert code(move(hub, "user/unknown", repo + "-b")) == (404, "RepoNotFound")
    assert hub.request("GET", hub.api(repo)).status == 200


def test_only_the_spelling_changes(hub, repo):
    assert move(hub, repo, repo.replace("model", "Model")).status == 200
    assert hub.call("GET", hub.api(repo))["id"] == repo.replace("model", "Model")


def test_a_redirect_does_not_betray_a_private_repository(hub, repo):
    move(hub, repo, repo + "-b")
    hub.set_repo(repo + "-b", private=True)
    assert code(hub.request("GET", hub.api(repo), token="other")) == (404, "RepoNotFound")
    assert code(hub.request("GET", hub.api(repo), token=None)) == (401, "RepoNotFound")
    assert hub.request("GET", hub.api(repo)).status == 307
    assert hub.request("GET", hub.api(repo), token="hf_wrong").status == 401


def test_old_names_and_links_survive_a_restart(tmp_path):
    from client import Hub

    with Hub(root=tmp_path / "hub") as hub:
        hub.create_repo("user/a")
        head = hub.commit("user/a", {"w.bin": WEIGHTS})
        move(hub, "user/a", "user/b")
        hub.stop()
        hub.start()
        assert hub.request("GET", hub.api("user/a")).headers["Location"] == hub.api("user/b")
        assert hub.head("user/b") == head and hub.content("user/b", "w.bin") == WEIGHTS


@pytest.mark.parametrize("value, status", [("direct", 200), ("redirect", 307)])
def test_ids_of_one_word(hub, repo, value, status):
    hub.config(one_word_resolve=value)
    hub.commit(repo, {"a.txt": b"a", "w.bin": WEIGHTS})
    hub.alias(repo, "gpt2")
    answer = hub.request("GET", "/api/models/gpt2")
    assert (answer.status, answer.headers["Location"]) == (307, hub.api(repo))
    assert (
        hub.request("GET", "/api/models/gpt2/tree/main").headers["Location"] == f"{hub.api(repo)}/tree/main"
    )
    assert hub.request("GET", "/gpt2.git/info/refs").headers["Location"] == f"/{repo}.git/info/refs"
    answer = hub.request("GET", "/gpt2/resolve/main/a.txt")
    assert answer.status == status
    assert (answer.body == b"a") == (value == "direct")
    location = hub.request("GET", "/gpt2/resolve/main/w.bin").headers["Location"]
    assert location.startswith(hub.data if value == "direct" else f"/{repo}/")
    assert hub.request("GET", "/api/datasets/gpt2").status == 404
    hub.delete_repo(repo)
    assert hub.request("GET", "/gpt2/resolve/main/a.txt").status == 404


def test_git_follows_an_old_name(hub, repo, git, tmp_path):
    move(hub, repo, repo + "-b")
    address = f"{hub.endpoint}/{repo}".replace("//", f"//user:{hub.tokens['user']}@")
    git("clone", address, "clone")
    clone = tmp_path / "clone"
    (clone / "n.txt").write_text("n")
    (clone / "n.bin").write_bytes(WEIGHTS)
    git("add", ".", cwd=clone)
    git("commit", "-m", "by git", cwd=clone)
    git("push", cwd=clone)
    assert hub.content(repo + "-b", "n.bin") == WEIGHTS
    assert hub.content(repo + "-b", "n.txt") == b"n"


# Settings and gates


def test_settings(hub, api, repo):
    target = hub.api(repo) + "/settings"
    assert hub.call("PUT", target, {"visibility": "private", "gated": "auto"})["visibility"] == "private"
    assert hub.call("GET", f"{hub.api(repo)}?expand=private&expand=gated") | {"_id": 0} == {
        "_id": 0,
        "id": repo,
        "modelId": repo,
        "private": True,
        "gated": "auto",
    }
    assert hub.call("PUT", target, {"private": False})["visibility"] == "public"
    assert api.model_info(repo).gated == "auto"
    for body in (
        {"visibility": "secret"},
        {"visibility": "protected"},
        {"gated": True},
        {"discussionsDisabled": 1},
    ):
        assert hub.request("PUT", target, body).status == 400
    assert hub.request("PUT", target, {"private": True}, token="other").status == 403
    assert hub.request("PUT", target, {"private": True}, token=None).status == 401


def test_a_disabled_repository_refuses_everything(hub, repo):
    head = hub.commit(repo, {"a": b"a"})
    hub.set_repo(repo, disabled=True)
    for method, target in (
        ("GET", hub.api(repo)),
        ("GET", f"{hub.api(repo)}/tree/main"),
        ("GET", f"/{repo}/resolve/main/a"),
        ("HEAD", f"/{repo}/resolve/main/a"),
        ("GET", f"/api/resolve-cache/models/{repo}/{head}/a"),
        ("POST", f"{hub.api(repo)}/commit/main"),
        ("POST", f"/{repo}.git/info/lfs/objects/batch"),
        ("GET", f"/{repo}.git/info/refs?service=git-upload-pack"),
    ):
        body = b'{"operation": "download"}' if method == "POST" else None
        answer = hub.request(method, target, body)
        assert (code(answer), answer.headers["X-Error-Message"]) == (
            (403, None),
            "Access to this resource is disabled.",
        )
        if method != "HEAD":
            assert answer.json()["error"] == "Access to this resource is disabled."


def test_gated_answers(hub, repo):
    """Metadata for everybody; bytes only for who has access, whatever the route."""
    head = hub.commit(repo, {"a.txt": b"a", "w.bin": WEIGHTS})
    hub.set_repo(repo, gated="manual")
    bytes_routes = [
        f"/{repo}/resolve/main/a.txt",
        f"/{repo}/resolve/main/w.bin",
        f"/{repo}/raw/main/a.txt",
        f"/api/resolve-cache/models/{repo}/{head}/a.txt",
        f"{hub.api(repo)}/auth-check",
        f"/{repo}.git/info/refs?service=git-upload-pack",
    ]
    for token, status, words in (
        (None, 401, "Please log in."),
        ("reader", 403, "not in the authorized list"),
        ("hf_wrong", 401, "Invalid credentials"),
    ):
        for target in bytes_routes:
            answer = hub.request("GET", target, token=token)
            assert code(answer) == (status, None if token == "hf_wrong" else "GatedRepo")
            assert words in answer.headers["X-Error-Message"] and words in answer.json()["error"]
        for rest in ("", "/tree/main", "/refs", "/revision/main", "/commits/main"):
            wanted = 401 if token == "hf_wrong" else 200
            assert hub.request("GET", hub.api(repo) + rest, token=token).status == wanted
    assert hub.request("GET", f"/{repo}/resolve/main/a.txt").body == b"a"


def test_access_to_a_gated_repository(hub, api, repo):
    """Asked for, pending, rejected, accepted, and taken back, with what the official client has for it."""
    hub.commit(repo, {"a.txt": b"a"})
    target = f"/{repo}/resolve/main/a.txt"
    assert hub.request("POST", f"/{repo}/ask-access", {}, token="reader").status == 400
    api.update_repo_settings(repo, gated="manual")
    assert hub.request("POST", f"/{repo}/ask-access", {}, token=None).status == 401
    answer = hub.request("POST", f"/{repo}/ask-access", {}, token="reader")
    assert (answer.status, answer.headers["Location"]) == (303, f"/{repo}")
    (request,) = api.list_pending_access_requests(repo)
    assert (request.username, request.status) == ("reader", "pending")
    for answer, words in (
        (api.reject_access_request, "awaiting a review"),
        (api.accept_access_request, "rejected"),
    ):
        refused = hub.request("GET", target, token="reader")
        assert code(refused) == (403, "GatedRepo") and words in refused.headers["X-Error-Message"]
        answer(repo, "reader", **({"rejection_reason": None} if answer == api.reject_access_request else {}))
    assert hub.request("GET", target, token="reader").body == b"a"
    assert [item.username for item in api.list_accepted_access_requests(repo)] == ["reader"]
    api.cancel_access_request(repo, "reader")
    assert hub.request("GET", target, token="reader").status == 403
    api.grant_access(repo, "other")
    assert HfApi(token=hub.tokens["other"]).file_exists(repo, "a.txt")
    with pytest.raises(HfHubHTTPError) as error:
        api.accept_access_request(repo, "nobody")
    assert error.value.response.status_code == 404
    assert hub.request("GET", f"{hub.api(repo)}/user-access-request/pending", token="reader").status == 403


def test_access_is_automatic(hub, repo):
    hub.commit(repo, {"a.txt": b"a"})
    hub.set_repo(repo, gated="auto")
    assert hub.request("GET", f"/{repo}/resolve/main/a.txt", token="reader").status == 403
    hub.request("POST", f"/{repo}/ask-access", {}, token="reader")
    assert hub.request("GET", f"/{repo}/resolve/main/a.txt", token="reader").status == 200
    assert (
        hub.request("POST", f"{hub.api(repo)}/user-access-request/cancel", {}, token="reader").status == 200
    )
    assert hub.request("GET", f"/{repo}/resolve/main/a.txt", token="reader").status == 403


# Duplicate


@pytest.mark.parametrize("value, titles", [("squash", 1), ("keep", 3)])
def test_duplicate(hub, api, repo, value, titles):
    hub.config(duplicate_history=value)
    hub.commit(repo, {"a.txt": b"a", "w.bin": WEIGHTS})
    hub.commit(repo, {"b.txt": b"b"})
    copy = "acme/" + repo.split("/")[1] + "-copy"
    url = api.duplicate_repo(repo, copy, visibility="private")
    assert (url.repo_id, url.files_copy_pending) == (copy, False)
    assert hub.paths(copy) == hub.paths(repo) and hub.content(copy, "w.bin") == WEIGHTS
    assert hub.git(copy, "rev-parse", "main^{tree}") == hub.git(repo, "rev-parse", "main^{tree}")
    assert len(hub.history(copy)) == titles
    assert hub.git(copy, "fsck", "--strict") == b""
    assert api.model_info(copy).private
    hub.delete_repo(repo)
    assert hub.content(copy, "w.bin") == WEIGHTS
    with pytest.raises(RepositoryNotFoundError):
        api.duplicate_repo(repo, copy + "2")


def test_duplicate_that_exists(hub, api, repo, new_id):
    hub.create_repo(new_id)
    answer = hub.request("POST", f"{hub.api(repo)}/duplicate", {"repository": new_id})
    assert (answer.status, answer.json()["url"]) == (409, f"{hub.endpoint}/{new_id}")
    assert api.duplicate_repo(repo, new_id, exist_ok=True).repo_id == new_id
    for body, status in (({"repository": "other/x"}, 403), ({"repository": "x"}, 400), ({}, 400)):
        assert hub.request("POST", f"{hub.api(repo)}/duplicate", body).status == status
    hub.set_repo(repo, gated="manual")
    answer = hub.request("POST", f"{hub.api(repo)}/duplicate", {"repository": "other/x"}, token="other")
    assert code(answer) == (403, "GatedRepo")


def test_a_duplicate_that_fails_leaves_nothing(hub, repo, new_id):
    hub.set_ref(repo, "refs/heads/main", None)
    before = os.listdir(os.path.join(hub.root, "repos"))
    answer = hub.request("POST", f"{hub.api(repo)}/duplicate", {"repository": new_id})
    assert code(answer) == (404, "RevisionNotFound")
    assert os.listdir(os.path.join(hub.root, "repos")) == before
    assert hub.request("GET", hub.api(new_id)).status == 404


def test_duplicate_whose_files_come_later(hub, api, repo, new_id):
    hub.config(duplicate_files="later")
    hub.commit(repo, {"a.txt": b"a", "w.bin": WEIGHTS})
    assert api.duplicate_repo(repo, new_id).files_copy_pending
    location = hub.request("GET", f"/{new_id}/resolve/main/w.bin").headers["Location"]
    assert hub.request("GET", location, token=None).status == 404
    assert hub.finish_copies() == 1
    assert hub.request("GET", location, token=None).body == WEIGHTS


def test_lfs_objects_of_another_repository(hub, repo, new_id):
    hub.create_repo(new_id, "dataset")
    hub.commit(repo, {"w.bin": WEIGHTS})
    oid, missing = hashlib.sha256(WEIGHTS).hexdigest(), "0" * 64
    body = {
        "target": {"type": "dataset", "name": new_id},
        "files": [{"xetHash": None, "sha256": sha, "filename": "w.bin"} for sha in (oid, missing)],
    }
    answer = hub.call("POST", f"{hub.api(repo)}/lfs-files/duplicate", body)
    assert [item["sha256"] for item in answer["failed"]] == [missing]
    hub.commit_lines(
        new_id,
        [
            {"key": "header", "value": {"summary": "copy"}},
            {"key": "lfsFile", "value": {"path": "c.bin", "algo": "sha256", "oid": oid}},
        ],
        type="dataset",
    )
    assert hub.content(new_id, "c.bin", type="dataset") == WEIGHTS
    assert hub.request("POST", f"{hub.api(repo)}/lfs-files/duplicate", body, token="other").status == 403
    with pytest.raises(HubError, match="400"):
        hub.call("POST", f"{hub.api(repo)}/lfs-files/duplicate", {**body, "files": []})


# Lists and accounts


def test_lists_filter_and_sort(hub, new_id):
    names = [f"{new_id}-{letter}".replace("user/", "other/") for letter in "abc"]
    for name in names:
        hub.create_repo(name, token="other")
    hub.set_repo(names[1], gated="auto")
    hub.config(page_size=2)
    search = "/api/models?author=Other&search=" + new_id.split("/")[1].upper()
    assert [item["id"] for item in pages(hub, search)] == names
    assert [item["id"] for item in pages(hub, search + "&sort=createdAt")] == names[::-1]
    assert [item["id"] for item in pages(hub, search + "&gated=true")] == [names[1]]
    assert pages(hub, search + "&filter=nobody-has-this-tag") == []
    assert len(pages(hub, search + "&limit=1")) == 3
    assert "sha" not in pages(hub, search)[0]
    assert {"sha", "lastModified", "siblings"} <= set(pages(hub, search + "&full=true")[0])
    for wrong in ("&sort=beauty", "&expand=nonsense", "&full=true&expand=sha"):
        assert hub.request("GET", search + wrong).status == 400


def test_all_repositories_of_a_namespace(hub, api, new_id):
    repo_id = new_id.replace("user/", "acme/")
    for repo_type in ("model", "dataset", "space"):
        hub.create_repo(repo_id, repo_type, private=repo_type == "dataset")
    hub.commit(repo_id, {"w.bin": WEIGHTS})
    hub.config(page_size=2)
    found = {item.type: item for item in api.list_user_repos("acme") if item.id == repo_id}
    assert {kind: item.visibility for kind, item in found.items()} == {
        "model": "public",
        "dataset": "private",
        "space": "public",
    }
    assert found["model"].storage == len(WEIGHTS) and 0 < found["model"].storage_percent <= 1
    assert all(item.id.startswith("user/") for item in api.list_user_repos())
    assert hub.request("GET", "/api/settings/repositories", token=None).status == 401
    assert hub.request("GET", "/api/organizations/acme/settings/repositories", token="scoped").status == 403
    assert hub.request("GET", "/api/organizations/nobody/settings/repositories").status == 404


def test_whoami_of_each_kind_of_token(hub, repo):
    for name, role in (("user", "write"), ("reader", "read"), ("scoped", "fineGrained")):
        me = hub.call("GET", "/api/whoami-v2", token=name)
        assert (me["name"], me["auth"]["accessToken"]["role"]) == (name, role)
        assert {
            "id",
            "type",
            "fullname",
            "emailVerified",
            "isPro",
            "canPay",
            "periodEnd",
            "avatarUrl",
            "orgs",
        } <= set(me)
    assert hub.request("GET", "/api/whoami-v2", token=None).status == 401
    assert hub.request("GET", "/api/whoami-v2", token="hf_wrong").status == 401
    hub.create_repo(repo.replace("user/", "scoped/"), token="scoped")
    assert hub.request("GET", f"{hub.api(repo)}/auth-check/write", token="scoped").status == 403
