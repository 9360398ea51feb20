"""The unmodified huggingface_hub client: discussions and pull requests, from the first word to the merge."""

import os

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError


def test_discussion(hub, api, connect, repo):
    """A stranger opens one and comments; owner and stranger change words, title and status."""
    other = connect("other")
    opened = other.create_discussion(repo, title="A question", description="Why?")
    assert (opened.num, opened.status, opened.is_pull_request, opened.author) == (1, "open", False, "other")
    comment = api.comment_discussion(repo, 1, "Because.")
    assert (comment.content, comment.author) == ("Because.", "user")
    assert api.edit_discussion_comment(repo, 1, comment.id, "Because!").content == "Because!"
    assert api.rename_discussion(repo, 1, "An answer").new_title == "An answer"
    assert api.change_discussion_status(repo, 1, "closed", comment="done").new_status == "closed"
    assert api.get_discussion_details(repo, 1).status == "closed"
    assert api.change_discussion_status(repo, 1, "open").new_status == "open"
    assert api.hide_discussion_comment(repo, 1, comment.id).hidden
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.status) == ("An answer", "open")
    kinds = [event.type for event in details.events]
    assert kinds[:2] == ["comment", "comment"]
    assert [kind for kind in kinds if kind != "comment"] == ["title-change", "status-change", "status-change"]


def test_lists_and_filters(hub, api, connect, repo):
    for number in range(3):
        api.create_discussion(repo, title=f"Discussion {number}")
    connect("other").create_pull_request(repo, title="Pull request")
    api.change_discussion_status(repo, 1, "closed")
    hub.config(page_size=2)
    assert sorted(item.num for item in api.get_repo_discussions(repo)) == [1, 2, 3, 4]
    assert [item.num for item in api.get_repo_discussions(repo, discussion_type="pull_request")] == [4]
    assert [item.num for item in api.get_repo_discussions(repo, author="other")] == [4]
    assert [item.num for item in api.get_repo_discussions(repo, discussion_status="closed")] == [1]


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_pull_request_of_several_commits_is_merged(hub, api, connect, new_id, kind):
    """Opened first, filled by commits to its ref, merged by the owner."""
    hub.create_repo(new_id, kind)
    hub.commit(new_id, {"gone.txt": b"x", "kept.txt": b"k"}, type=kind)
    opened = connect("other").create_pull_request(new_id, title="Three steps", repo_type=kind)
    assert opened.git_reference == "refs/pr/1"
    weights = os.urandom(3000)
    for operation in (
        CommitOperationAdd("w.bin", weights),
        CommitOperationAdd("t.txt", b"t"),
        CommitOperationDelete("gone.txt"),
    ):
        api.create_commit(
            new_id, [operation], commit_message=operation.path_in_repo, repo_type=kind, revision="refs/pr/1"
        )
    assert hub.paths(new_id, type=kind) == [".gitattributes", "gone.txt", "kept.txt"]
    assert "w.bin" in api.get_discussion_details(new_id, 1, repo_type=kind).diff
    api.change_discussion_status(new_id, 1, "open", repo_type=kind)
    api.merge_pull_request(new_id, 1, comment="thanks", repo_type=kind)
    details = api.get_discussion_details(new_id, 1, repo_type=kind)
    assert (details.status, details.merge_commit_oid) == ("merged", hub.head(new_id, type=kind))
    assert hub.paths(new_id, type=kind) == [".gitattributes", "kept.txt", "t.txt", "w.bin"]
    assert hub.content(new_id, "w.bin", type=kind) == weights
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(new_id, 1, repo_type=kind)


def test_merge_beside_other_commits_and_with_conflicts(hub, api, repo):
    hub.commit(repo, {"a.txt": b"1", "b.txt": b"1"})
    for path in ("a.txt", "b.txt"):
        api.create_commit(repo, [CommitOperationAdd(path, b"theirs")], commit_message=path, create_pr=True)
    hub.commit(repo, {"a.txt": b"ours", "c.txt": b"c"})
    assert api.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(repo, 1)
    assert hub.content(repo, "a.txt") == b"ours"
    assert not api.get_discussion_details(repo, 2).conflicting_files
    api.merge_pull_request(repo, 2)
    assert [hub.content(repo, name) for name in ("a.txt", "b.txt", "c.txt")] == [b"ours", b"theirs", b"c"]
    assert hub.git(repo, "fsck", "--strict") == b""


def test_folder_as_a_pull_request(hub, connect, repo, tmp_path):
    """A stranger's regular files; the owner's large ones, for plain LFS always needs write access."""
    (tmp_path / "a.txt").write_bytes(b"a")
    info = connect("other").upload_folder(repo_id=repo, folder_path=tmp_path, create_pr=True)
    assert hub.content(repo, "a.txt", info.pr_revision) == b"a"
    (tmp_path / "w.bin").write_bytes(bytes(2000))
    with pytest.raises(HfHubHTTPError) as error:
        connect("other").upload_folder(repo_id=repo, folder_path=tmp_path, create_pr=True)
    assert error.value.response.status_code == 403
    info = connect("user").upload_folder(repo_id=repo, folder_path=tmp_path, create_pr=True)
    assert hub.content(repo, "w.bin", info.pr_revision) == bytes(2000)
    assert hub.paths(repo) == [".gitattributes"]


def test_only_the_owner_merges(hub, api, connect, repo):
    api.create_commit(repo, [CommitOperationAdd("p", b"p")], commit_message="mine", create_pr=True)
    for account, status in (("other", 403), ("reader", 403), (False, 401)):
        with pytest.raises(HfHubHTTPError) as error:
            connect(account).merge_pull_request(repo, 1)
        assert error.value.response.status_code == status
    api.change_discussion_status(repo, 1, "closed")
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(repo, 1)
    assert "p" not in hub.paths(repo)
