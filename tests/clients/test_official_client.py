"""The unmodified huggingface_hub client: repositories, refs, uploads, commits and pull requests."""

import hashlib
import os

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    __version__,
    metadata_update,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# Accounts and repositories

def test_whoami(api):
    me = api.whoami()
    assert (me["name"], me["type"], me["orgs"][0]["name"]) == ("user", "user", "acme")


def test_namespace_overviews(api, repo):
    assert api.get_user_overview("user").username == "user"
    assert api.get_organization_overview("acme").name == "acme"
    with pytest.raises(HfHubHTTPError):
        api.get_user_overview("nobody")


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_create_repo(api, new_id, repo_type):
    sdk = "static" if repo_type == "space" else None
    url = api.create_repo(new_id, repo_type=repo_type, space_sdk=sdk)
    assert (url.repo_id, url.repo_type) == (new_id, repo_type)
    assert api.create_repo(new_id, repo_type=repo_type, space_sdk=sdk, exist_ok=True) == url
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(new_id, repo_type=repo_type, space_sdk=sdk)
    assert error.value.response.status_code == 409
    assert api.list_repo_files(new_id, repo_type=repo_type) == [".gitattributes"]
    assert [c.title for c in api.list_repo_commits(new_id, repo_type=repo_type)] == ["initial commit"]


def test_create_repo_in_a_foreign_namespace_is_refused(connect, new_id):
    for account, namespace in (("user", "other"), ("reader", "acme"), ("reader", "reader")):
        with pytest.raises(HfHubHTTPError) as error:
            connect(account).create_repo(new_id.replace("user/", namespace + "/"))
        assert error.value.response.status_code == 403


def test_organization_repo_is_written_by_its_members(hub, connect, new_id):
    repo_id = new_id.replace("user/", "acme/")
    connect("user").create_repo(repo_id)
    connect("other").upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo_id)
    assert hub.content(repo_id, "x.txt") == b"x"


def test_delete_repo(api, repo):
    assert api.repo_exists(repo)
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    api.delete_repo(repo, missing_ok=True)


def test_ids_are_case_insensitive_and_stable(api, repo):
    info = api.model_info(repo.upper())
    assert info.id == repo
    assert len(info.sha) == 40


def test_list_models_by_author_pages(api, hub, new_id):
    names = [f"{new_id}-{number}".replace("user/", "other/") for number in range(7)]
    for name in names:
        hub.create_repo(name, private=name.endswith("6"), token="other")
    hub.config(page_size=3)
    assert {item.id for item in api.list_models(author="other")} >= set(names[:6])
    assert names[6] not in {item.id for item in api.list_models(author="other")}
    assert names[6] in {item.id for item in api.list_models(author="other", token=hub.tokens["other"])}


def test_model_info_with_sizes(api, hub, repo):
    weights = os.urandom(1000)
    hub.commit(repo, {"w.safetensors": weights, "a.txt": b"abc"})
    siblings = {item.rfilename: item for item in api.model_info(repo, files_metadata=True).siblings}
    assert siblings["w.safetensors"].size == 1000
    assert siblings["w.safetensors"].lfs.sha256 == hashlib.sha256(weights).hexdigest()
    assert (siblings["a.txt"].size, siblings["a.txt"].blob_id) == (3, git_sha1(b"abc"))


# Branches, tags, commits

def test_branches(api, repo):
    api.create_branch(repo, branch="feature/x")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_branch(repo, branch="feature/x")
    assert error.value.response.status_code == 409
    api.create_branch(repo, branch="feature/x", exist_ok=True)
    assert sorted(b.name for b in api.list_repo_refs(repo).branches) == ["feature/x", "main"]
    api.upload_file(path_or_fileobj=b"1", path_in_repo="1.txt", repo_id=repo, revision="feature/x")
    assert api.file_exists(repo, "1.txt", revision="feature/x")
    assert not api.file_exists(repo, "1.txt")
    api.delete_branch(repo, branch="feature/x")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="feature/x")
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        api.delete_branch(repo, branch="main")
    with pytest.raises(BadRequestError, match="Invalid reference for a branch"):
        api.create_branch(repo, branch="refs/heads/x")
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(repo, branch="y", revision="nowhere")


def test_tags(api, hub, repo):
    head = hub.commit(repo, {"a.txt": b"a"})
    api.create_tag(repo, tag="v1", tag_message="first")
    api.create_tag(repo, tag="v0", revision=hub.history(repo)[1][0])
    with pytest.raises(HfHubHTTPError):
        api.create_tag(repo, tag="v1")
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo).tags}
    assert tags == {"v1": head, "v0": hub.history(repo)[1][0]}
    assert not api.file_exists(repo, "a.txt", revision="v0")
    api.delete_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(repo, tag="v1")


def test_commits(api, hub, repo):
    for number in range(5):
        hub.commit(repo, {"n.txt": b"%d" % number}, summary=f"commit {number}", description=f"why {number}\nmore")
    hub.config(page_size=2)
    commits = api.list_repo_commits(repo)
    assert [item.title for item in commits] == [f"commit {n}" for n in range(4, -1, -1)] + ["initial commit"]
    assert commits[0].message == "why 4\nmore"
    assert commits[0].authors == ["user"]
    assert [item.commit_id for item in commits] == [oid for oid, _ in hub.history(repo)]


# Uploads

def test_upload_file_regular_and_lfs(api, hub, repo):
    weights = os.urandom(100_000)
    api.upload_file(path_or_fileobj=b"hello\n", path_in_repo="dir/a b#c?%25.txt", repo_id=repo)
    info = api.upload_file(path_or_fileobj=weights, path_in_repo="ünï/w.safetensors", repo_id=repo,
                           commit_message="Weights", commit_description="trained")
    assert hub.content(repo, "dir/a b#c?%25.txt") == b"hello\n"
    assert hub.blob(repo, "ünï/w.safetensors").startswith(b"version https://git-lfs")
    assert hub.content(repo, "ünï/w.safetensors") == weights
    assert hub.history(repo)[0] == (info.oid, "Weights")
    assert hub.git(repo, "fsck", "--strict") == b""


def test_upload_of_identical_content_makes_no_commit(api, hub, repo):
    weights = os.urandom(1000)
    for _ in range(2):
        api.upload_file(path_or_fileobj=weights, path_in_repo="w.bin", repo_id=repo)
        api.upload_file(path_or_fileobj=b"same", path_in_repo="t.txt", repo_id=repo)
    assert len(hub.history(repo)) == 3


def test_empty_file_is_regular(api, hub, repo):
    api.upload_file(path_or_fileobj=b"", path_in_repo="empty.bin", repo_id=repo)
    assert hub.blob(repo, "empty.bin") == b""


def test_multipart_upload(api, hub, repo, tmp_path):
    since = hub.last_seq()
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(7_300_000))
    api.upload_file(path_or_fileobj=path, path_in_repo="big.bin", repo_id=repo)
    assert hub.content(repo, "big.bin") == path.read_bytes()
    puts = [item for item in hub.requests(since, method="PUT") if item["path"].startswith("/uploads/")]
    assert sorted(item["received"] for item in puts) == [300_000] + [1_000_000] * 7
    assert len(hub.requests(since, path="/api/complete_multipart")) == 1


def test_multipart_upload_survives_failing_parts(api, hub, repo):
    hub.fault("/uploads/", method="PUT", times=2, status=500)
    content = os.urandom(6_500_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="big.bin", repo_id=repo)
    assert hub.content(repo, "big.bin") == content


def test_untracked_large_file_gets_a_line_in_gitattributes(api, hub, repo):
    content = os.urandom(1_500_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="odd dir/[x].dat", repo_id=repo)
    attributes = hub.content(repo, ".gitattributes").decode()
    assert attributes.splitlines()[-1] == r"odd[[:space:]]dir/\[x].dat filter=lfs diff=lfs merge=lfs -text"


def test_upload_folder(api, hub, repo, tmp_path):
    files = {f"sub{n % 3}/f{n}.txt": b"%d" % n for n in range(30)}
    files |= {"w.safetensors": os.urandom(5000), "empty": b"", "ignored.log": b"x", ".gitignore": b"*.log\n"}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    del files["ignored.log"]
    assert sorted(hub.paths(repo)) == sorted([*files, ".gitattributes"])
    assert all(hub.content(repo, name) == content for name, content in files.items())
    assert len(hub.history(repo)) == 2
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "sub1", path_in_repo="sub0", delete_patterns="*")
    assert [path for path in hub.paths(repo) if path.startswith("sub0/")] == sorted(
        f"sub0/f{n}.txt" for n in range(30) if n % 3 == 1)


def test_commit_with_add_delete_and_copy(api, hub, repo):
    weights = os.urandom(2000)
    head = hub.commit(repo, {"w.bin": weights, "t.txt": b"text", "old/a": b"a", "old/b": b"b", "gone": b"x"})
    info = api.create_commit(repo, [
        CommitOperationAdd("new.txt", b"new"),
        CommitOperationDelete("gone"),
        CommitOperationDelete("old/"),
        CommitOperationCopy("w.bin", "copy/w.bin"),
        CommitOperationCopy("t.txt", "copy/t.txt"),
    ], commit_message="All at once", parent_commit=head)
    assert sorted(hub.paths(repo)) == [".gitattributes", "copy/t.txt", "copy/w.bin", "new.txt", "t.txt", "w.bin"]
    assert hub.content(repo, "copy/w.bin") == weights
    assert hub.content(repo, "copy/t.txt") == b"text"
    assert hub.history(repo)[0] == (info.oid, "All at once")


def test_folder_replaced_by_file_in_one_commit(api, hub, repo):
    hub.commit(repo, {"x/a": b"a", "y": b"y"})
    api.create_commit(repo, [
        CommitOperationDelete("x/"), CommitOperationAdd("x", b"file"),
        CommitOperationDelete("y"), CommitOperationAdd("y/b", b"b"),
    ], commit_message="swap")
    assert (hub.content(repo, "x"), hub.content(repo, "y/b")) == (b"file", b"b")


def test_delete_file_and_folder(api, hub, repo):
    hub.commit(repo, {"a": b"a", "d/x": b"x", "d/e/y": b"y"})
    api.delete_file("a", repo)
    api.delete_folder("d", repo)
    assert hub.paths(repo) == [".gitattributes"]
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a", repo)


def test_parent_commit_must_be_the_head(api, hub, repo):
    old = hub.head(repo)
    hub.commit(repo, {"a": b"a"})
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(repo, [CommitOperationAdd("b", b"b")], commit_message="late", parent_commit=old)
    assert error.value.response.status_code == 412
    assert len(hub.history(repo)) == 2


def test_preuploaded_objects_survive_without_a_commit(api, hub, repo):
    addition = CommitOperationAdd("w.bin", os.urandom(3000))
    api.preupload_lfs_files(repo, [addition])
    assert len(hub.history(repo)) == 1
    api.create_commit(repo, [addition], commit_message="later", parent_commit=hub.head(repo))
    assert len(hub.content(repo, "w.bin")) == 3000


def test_readme_metadata_is_checked(api, hub, repo):
    api.upload_file(path_or_fileobj=b"---\ntags: [a, b]\n---\n# Title\n", path_in_repo="README.md", repo_id=repo)
    assert hub.content(repo, "README.md").endswith(b"# Title\n")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(path_or_fileobj=b"---\na: b: c\n---\n", path_in_repo="README.md", repo_id=repo)


if not __version__.startswith("1."):  # 1.x lets no endpoint but its own judge a card
    def test_metadata_update(hub, repo):
        hub.commit(repo, {"README.md": b"---\ntags: [a, b]\n---\n# Title\n"})
        metadata_update(repo, {"license": "mit"})
        assert b"license: mit" in hub.content(repo, "README.md")


def test_write_to_a_tag_or_commit_is_refused(api, hub, repo):
    api.create_tag(repo, tag="v1")
    for revision in ("v1", hub.head(repo)):
        with pytest.raises(BadRequestError):
            api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision=revision)
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo, revision="nowhere")


# Pull requests

def test_pull_request_by_commit(hub, connect, repo):
    stranger = connect("other")
    info = stranger.create_commit(repo, [CommitOperationAdd("p.txt", b"p")], commit_message="Please", create_pr=True)
    assert (info.pr_num, info.pr_revision) == (1, "refs/pr/1")
    assert hub.content(repo, "p.txt", "refs/pr/1") == b"p"
    assert "p.txt" not in hub.paths(repo)
    assert [ref.name for ref in stranger.list_repo_refs(repo, include_pull_requests=True).pull_requests] == ["1"]
    stranger.upload_file(path_or_fileobj=b"q", path_in_repo="q.txt", repo_id=repo, revision="refs/pr/1")
    assert [title for _, title in hub.history(repo, "refs/pr/1")][1:] == ["Please", "initial commit"]
    with pytest.raises(HfHubHTTPError) as error:
        stranger.upload_file(path_or_fileobj=b"q", path_in_repo="q.txt", repo_id=repo)
    assert error.value.response.status_code == 403


def test_pull_request_as_a_discussion(api, hub, repo):
    opened = api.create_pull_request(repo, title="A draft", description="empty yet")
    assert (opened.num, opened.status, opened.is_pull_request) == (1, "draft", True)
    assert hub.head(repo, "refs/pr/1") == hub.head(repo)
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.target_branch) == ("A draft", "refs/heads/main")
    assert [item.num for item in api.get_repo_discussions(repo)] == [1]


# Trees

def test_list_repo_tree(api, hub, repo):
    weights = os.urandom(2000)
    hub.commit(repo, {"w.bin": weights, "d/a.txt": b"aa", "d/e/b.txt": b"b"})
    hub.config(page_size=2)
    tree = {item.path: item for item in api.list_repo_tree(repo, recursive=True)}
    assert sorted(tree) == [".gitattributes", "d", "d/a.txt", "d/e", "d/e/b.txt", "w.bin"]
    assert tree["d"].tree_id == hub.git(repo, "rev-parse", "main:d").decode().strip()
    assert (tree["d/a.txt"].size, tree["d/a.txt"].blob_id) == (2, git_sha1(b"aa"))
    assert (tree["w.bin"].size, tree["w.bin"].lfs.sha256) == (2000, hashlib.sha256(weights).hexdigest())
    assert [item.path for item in api.list_repo_tree(repo, "d/e")] == ["d/e/b.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "missing"))
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "w.bin"))


def test_last_commits(api, hub, repo):
    first = hub.commit(repo, {"a": b"1", "d/x": b"1"}, summary="first")
    second = hub.commit(repo, {"a": b"2"}, summary="second")
    tree = {item.path: item.last_commit for item in api.list_repo_tree(repo, recursive=True, expand=True)}
    assert (tree["a"].oid, tree["a"].title) == (second, "second")
    assert tree["d"].oid == tree["d/x"].oid == first


def test_get_paths_info(api, hub, repo):
    hub.commit(repo, {"d/a.txt": b"a", "ü#.txt": b"u"})
    found = {item.path: item for item in api.get_paths_info(repo, ["d", "ü#.txt", "missing", "d/a.txt"], expand=True)}
    assert sorted(found) == ["d", "d/a.txt", "ü#.txt"]
    assert found["d"].last_commit.oid == hub.head(repo)
    assert found["ü#.txt"].blob_id == git_sha1(b"u")


# Private, gated, unknown

def test_private_repo(hub, connect, api, new_id):
    api.create_repo(new_id, private=True)
    api.upload_file(path_or_fileobj=b"s", path_in_repo="s.txt", repo_id=new_id)
    assert api.model_info(new_id).private
    for token in (False, hub.tokens["other"]):
        with pytest.raises(RepositoryNotFoundError):
            connect(token).model_info(new_id)
    api.update_repo_settings(new_id, visibility="public")
    assert connect(False).model_info(new_id).id == new_id


def test_gated_repo(hub, connect, api, repo):
    hub.commit(repo, {"s.txt": b"s"})
    api.update_repo_settings(repo, gated="manual")
    for token in (False, hub.tokens["reader"]):
        stranger = connect(token)
        assert stranger.model_info(repo).gated == "manual"
        with pytest.raises(GatedRepoError):
            stranger.auth_check(repo)
        with pytest.raises(GatedRepoError):
            stranger.hf_hub_download(repo, "s.txt")
    hub.set_repo(repo, granted=["reader"])
    connect("reader").auth_check(repo)
    with pytest.raises(HfHubHTTPError):
        connect("reader").auth_check(repo, write=True)
    api.auth_check(repo, write=True)


def test_bad_token_and_unknown_repo(connect, api, repo):
    with pytest.raises(HfHubHTTPError) as error:
        connect("hf_wrong").model_info(repo)
    assert error.value.response.status_code == 401
    assert not isinstance(error.value, RepositoryNotFoundError)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("user/unknown")
