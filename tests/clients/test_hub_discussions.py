"""Discussions and pull requests: the official client's calls, and what raw requests show of them."""

import concurrent.futures

import pytest
from client import quote
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError


def code(answer):
    return answer.status, answer.headers["X-Error-Code"]


def post(hub, repo, rest, body=None, token="user"):
    return hub.request("POST", f"{hub.api(repo)}/discussions{rest}", body or {}, token=token)


def propose(hub, repo, files, token="other", **more):
    """A pull request by somebody else; its number."""
    return hub.propose(repo, files, token=token, **more)


def details(hub, repo, number, query="?diff=1"):
    return hub.call("GET", f"{hub.api(repo)}/discussions/{number}{query}")


def merge(hub, repo, number, token="user", **body):
    return post(hub, repo, f"/{number}/merge", body, token)


# Discussions


def test_a_discussion_from_end_to_end(api, repo):
    opened = api.create_discussion(repo, title="  A question  ", description="Why?")
    assert (opened.num, opened.title, opened.status, opened.is_pull_request) == (
        1,
        "A question",
        "open",
        False,
    )
    (first,) = opened.events
    assert (first.type, first.content, first.author, first.edited) == ("comment", "Why?", "user", False)
    said = api.comment_discussion(repo, 1, "Because <b>")
    assert (said.content, said.rendered) == ("Because <b>", "<p>Because &lt;b&gt;</p>\n")
    edited = api.edit_discussion_comment(repo, 1, said.id, "Because.")
    assert (edited.content, edited.edited, edited.number_of_edits) == ("Because.", True, 1)
    assert edited.edit_history[0]["raw"] == "Because <b>" and edited.last_edited_by == "user"
    hidden = api.hide_discussion_comment(repo, 1, said.id)
    assert hidden.hidden and "Because" not in str(hidden._event)
    renamed = api.rename_discussion(repo, 1, "An answer")
    assert (renamed.old_title, renamed.new_title) == ("A question", "An answer")
    closed = api.change_discussion_status(repo, 1, "closed", comment="done")
    assert (closed.type, closed.new_status) == ("status-change", "closed")
    again = api.get_discussion_details(repo, 1)
    assert (again.title, again.status) == ("An answer", "closed")
    assert [item.type for item in again.events] == [
        "comment",
        "comment",
        "title-change",
        "comment",
        "status-change",
    ]
    assert (again.diff, again.target_branch, again.conflicting_files) == (None, None, None)
    api.change_discussion_status(repo, 1, "open")
    assert api.get_discussion_details(repo, 1).status == "open"


def test_discussions_survive_a_restart(tmp_path):
    from client import Hub

    with Hub(root=tmp_path / "hub") as hub:
        hub.create_repo("user/a")
        post(hub, "user/a", "", {"title": "One", "description": "two"})
        before = details(hub, "user/a", 1)
        hub.stop()
        hub.start()
        assert details(hub, "user/a", 1) == before


def test_list_pages_and_filters(hub, connect, api, repo):
    for number in range(5):
        post(
            hub,
            repo,
            "",
            {"title": f"Title {number}", "description": "", "pullRequest": number % 2 == 1},
            token="other" if number == 4 else "user",
        )
    api.change_discussion_status(repo, 1, "closed")
    hub.config(page_size=2)
    assert [item.num for item in api.get_repo_discussions(repo)] == [5, 4, 3, 2, 1]
    page = hub.call("GET", f"{hub.api(repo)}/discussions?p=1")
    assert ([item["num"] for item in page["discussions"]], page["count"], page["start"]) == ([3, 2], 5, 2)
    for options, numbers in (
        ({"discussion_type": "pull_request"}, [4, 2]),
        ({"discussion_type": "discussion"}, [5, 3, 1]),
        ({"discussion_status": "closed"}, [1]),
        ({"discussion_status": "open"}, [5, 4, 3, 2]),
        ({"author": "other"}, [5]),
        ({"discussion_type": "all", "discussion_status": "all"}, [5, 4, 3, 2, 1]),
    ):
        assert [item.num for item in api.get_repo_discussions(repo, **options)] == numbers
    assert hub.request("GET", f"{hub.api(repo)}/discussions?type=poem").status == 400
    assert len(list(connect(False).get_repo_discussions(repo))) == 5


def test_who_may_do_what(hub, repo):
    number = post(hub, repo, "", {"title": "Mine", "description": "text"}, token="other").json()["num"]
    comment = details(hub, repo, number)["events"][0]["id"]
    changes = [
        (f"/{number}/comment/{comment}/edit", {"content": "x"}),
        (f"/{number}/comment/{comment}/hide", {}),
        (f"/{number}/title", {"title": "Yours"}),
        (f"/{number}/status", {"status": "closed"}),
    ]
    for rest, body in [
        ("", {"title": "abc", "description": ""}),
        (f"/{number}/comment", {"comment": "x"}),
        *changes,
    ]:
        assert post(hub, repo, rest, body, token=None).status == 401
        assert post(hub, repo, rest, body, token="reader").status == 403
    for rest, body in changes:
        assert post(hub, repo, rest, body, token="scoped").status == 403
    assert post(hub, repo, changes[0][0], changes[0][1], token="user").status == 403
    for rest, body in changes[:1] + changes[2:] + changes[1:2]:
        assert post(hub, repo, rest, body, token="other").status == 200
    assert post(hub, repo, changes[0][0], changes[0][1], token="other").status == 400
    assert post(hub, repo, f"/{number}/title", {"title": "By the owner"}).status == 200
    assert post(hub, repo, f"/{number}/merge").status == 400


@pytest.mark.parametrize(
    "rest, body, status",
    [
        ("", {"title": "ab", "description": ""}, 400),
        ("", {"title": "x" * 201, "description": ""}, 400),
        ("", {"title": "abc", "description": "x" * 65537}, 400),
        ("/9/comment", {"comment": "x"}, 404),
        ("/1/comment", {"comment": " "}, 400),
        ("/1/comment/000000/edit", {"content": "x"}, 404),
        ("/1/title", {"title": "a"}, 400),
        ("/1/status", {"status": "merged"}, 400),
        ("/one/status", {"status": "open"}, 404),
        ("/9/merge", {}, 404),
    ],
)
def test_refused(hub, repo, rest, body, status):
    post(hub, repo, "", {"title": "First", "description": ""})
    answer = post(hub, repo, rest, body)
    assert answer.status == status and isinstance(answer.json()["error"], str)
    assert hub.request("GET", f"{hub.api(repo)}/discussions/9").status == 404


def test_discussions_can_be_disabled(hub, repo):
    hub.call("PUT", hub.api(repo) + "/settings", {"discussionsDisabled": True})
    assert post(hub, repo, "", {"title": "abc", "description": ""}).status == 403
    with pytest.raises(Exception, match="403"):
        propose(hub, repo, {"a": b"a"})
    assert "refs/pr/1" not in hub.git(repo, "for-each-ref").decode()


# Pull requests


def test_a_draft_is_filled_and_merged(hub, api, repo):
    """The workflow of many commits: nothing moves the branch but the merge, and that once."""
    hub.commit(repo, {"old.txt": b"old\n"})
    base = hub.head(repo)
    number = api.create_pull_request(repo, title="Many parts", description="in parts").num
    revision = f"refs/pr/{number}"
    for part in range(3):
        api.create_commit(
            repo,
            [
                CommitOperationAdd(f"part{part}.bin", b"\0" * (100 + part)),
                CommitOperationAdd("log.txt", b"%d\n" % part),
            ],
            commit_message=f"Part {part}",
            revision=revision,
        )
    assert hub.head(repo) == base
    draft = api.get_discussion_details(repo, number)
    assert (draft.status, draft.conflicting_files, draft.merge_commit_oid) == ("draft", [], None)
    assert [item.summary for item in draft.events if item.type == "commit"] == ["Part 0", "Part 1", "Part 2"]
    assert "+++ b/part2.bin" in draft.diff and "old.txt" not in draft.diff
    with pytest.raises(HfHubHTTPError, match="draft"):
        api.merge_pull_request(repo, number)
    api.change_discussion_status(repo, number, "open")
    api.merge_pull_request(repo, number, comment="Thanks")
    merged = api.get_discussion_details(repo, number)
    assert (merged.status, merged.merge_commit_oid) == ("merged", hub.head(repo))
    assert (merged.diff, merged.conflicting_files) == (draft.diff, [])
    assert [item.type for item in merged.events][-3:] == ["status-change", "comment", "status-change"]
    assert [oid for oid, _ in hub.history(repo)][1:] == [base] + [oid for oid, _ in hub.history(repo, base)][
        1:
    ]
    assert hub.content(repo, "part2.bin") == b"\0" * 102 and hub.content(repo, "log.txt") == b"2\n"
    assert hub.git(repo, "log", "-1", "--format=%s", "main").decode() == f"Many parts (#{number})\n"
    assert hub.git(repo, "fsck", "--strict") == b""


def test_merge_with_a_base_that_moved(hub, repo):
    """Different lines of one file, and different files, are merged as git merges them."""
    lines = [b"line %d\n" % n for n in range(20)]
    hub.commit(repo, {"f.txt": b"".join(lines), "gone.txt": b"x", "same.txt": b"1"})
    theirs = [b"first\n", *lines[1:]]
    number = propose(
        hub, repo, {"f.txt": b"".join(theirs), "new.txt": b"new", "same.txt": b"2"}, summary="Theirs"
    )
    hub.commit(repo, {"f.txt": b"".join([*lines[:-1], b"last\n"]), "gone.txt": None, "same.txt": b"2"})
    base = hub.head(repo)
    assert details(hub, repo, number)["filesWithConflicts"] == []
    assert merge(hub, repo, number).status == 200
    assert hub.content(repo, "f.txt") == b"".join([b"first\n", *lines[1:-1], b"last\n"])
    assert hub.paths(repo) == [".gitattributes", "f.txt", "new.txt", "same.txt"]
    assert hub.git(repo, "rev-parse", "main^").decode().strip() == base
    message = hub.git(repo, "log", "-1", "--format=%B", "main").decode()
    assert (
        f"- Theirs ({hub.head(repo, f'refs/pr/{number}')})" in message and "Co-authored-by: other" in message
    )


@pytest.mark.parametrize("status", [409, 400, 412])
def test_merge_with_conflicts(hub, api, repo, status):
    hub.config(merge_conflict_status=status)
    hub.commit(repo, {"f.txt": b"base", "w.bin": b"\0base", "d.txt": b"d", "ok.txt": b"ok"})
    number = propose(
        hub, repo, {"f.txt": b"theirs", "w.bin": b"\0theirs", "d.txt": None, "ok.txt": b"more"}, token="user"
    )
    head = hub.commit(repo, {"f.txt": b"ours", "w.bin": b"\0ours", "d.txt": b"kept", "ü.txt": b"u"})
    assert details(hub, repo, number)["filesWithConflicts"] == ["d.txt", "f.txt", "w.bin"]
    answer = merge(hub, repo, number)
    assert (answer.status, answer.json()["filesWithConflicts"]) == (status, ["d.txt", "f.txt", "w.bin"])
    assert "conflicts" in answer.headers["X-Error-Message"]
    assert hub.head(repo) == head and details(hub, repo, number)["status"] == "open"
    assert hub.git(repo, "fsck", "--strict") == b""
    solved = {"f.txt": b"ours", "w.bin": b"\0ours", "d.txt": b"kept"}
    api.create_commit(
        repo,
        [CommitOperationAdd(name, data) for name, data in solved.items()],
        commit_message="Solve",
        revision=f"refs/pr/{number}",
    )
    assert details(hub, repo, number)["filesWithConflicts"] == []
    assert merge(hub, repo, number).status == 200
    assert hub.content(repo, "ok.txt") == b"more" and hub.content(repo, "ü.txt") == b"u"


def test_a_base_without_common_history_conflicts(hub, repo):
    hub.commit(repo, {"f.txt": b"f"})
    number = propose(hub, repo, {"p.txt": b"p"})
    hub.call("POST", f"{hub.api(repo)}/super-squash/main", {"message": "one"})
    assert details(hub, repo, number)["filesWithConflicts"] is True
    assert merge(hub, repo, number).status == 409


@pytest.mark.parametrize("value, parents", [("squash", 1), ("merge", 2)])
def test_parents_of_a_merge(hub, repo, value, parents):
    hub.config(merge_commit=value)
    number = propose(hub, repo, {"p.txt": b"p"})
    base, head = hub.head(repo), hub.head(repo, f"refs/pr/{number}")
    assert merge(hub, repo, number).status == 200
    assert hub.git(repo, "log", "-1", "--format=%P", "main").decode().split() == [base, head][:parents]
    assert details(hub, repo, number)["changes"]["mergeCommitId"] == hub.head(repo)
    assert [
        item["data"]["oid"] for item in details(hub, repo, number)["events"] if item["type"] == "commit"
    ] == [head]


@pytest.mark.parametrize("value, status", [("refuse", 400), ("accept", 200)])
def test_merge_of_an_empty_draft(hub, repo, value, status):
    hub.config(draft_merge=value)
    number = post(hub, repo, "", {"title": "Empty", "description": "", "pullRequest": True}).json()["num"]
    base = hub.head(repo)
    assert merge(hub, repo, number).status == status
    assert (hub.head(repo) == base) == (status == 400)


@pytest.mark.parametrize("end", ["merged", "closed"])
def test_a_pull_request_that_ended(hub, repo, end):
    number = propose(hub, repo, {"p.txt": b"p"})
    revision = f"refs/pr/{number}"
    assert hub.request("DELETE", f"{hub.api(repo)}/discussions/{number}/ref").status == 400
    if end == "merged":
        assert merge(hub, repo, number).status == 200
        assert post(hub, repo, f"/{number}/status", {"status": "open"}).status == 400
    else:
        assert post(hub, repo, f"/{number}/status", {"status": "closed"}).status == 200
    assert merge(hub, repo, number).status == 400
    head = hub.head(repo, revision)
    lines = [
        {"key": "header", "value": {"summary": "late"}},
        {"key": "file", "value": {"path": "q", "content": "q"}},
    ]
    with pytest.raises(Exception, match=f"403.*{end}"):
        hub.commit_lines(repo, lines, revision, token="other")
    with pytest.raises(Exception, match="401"):
        hub.commit_lines(repo, lines, revision, token=None)
    assert hub.head(repo, revision) == head
    hub.config(ended_pull_request="accept")
    hub.commit_lines(repo, lines, revision, token="other")
    assert hub.content(repo, "q", revision) == b"q" and "q" not in hub.paths(repo)
    before = details(hub, repo, number)
    assert hub.request("DELETE", f"{hub.api(repo)}/discussions/{number}/ref", token="other").status == 403
    assert hub.request("DELETE", f"{hub.api(repo)}/discussions/{number}/ref").status == 200
    assert code(hub.request("GET", f"{hub.api(repo)}/revision/{quote(revision)}")) == (
        404,
        "RevisionNotFound",
    )
    assert hub.request("DELETE", f"{hub.api(repo)}/discussions/{number}/ref").status == 404
    if end == "merged":
        assert details(hub, repo, number) == before


def test_what_git_has_forgotten(hub, repo):
    """A merged pull request is still there when its commits are not, and says what is kept of it."""
    number = propose(hub, repo, {"p.txt": b"p"})
    assert merge(hub, repo, number).status == 200
    hub.call("POST", f"{hub.api(repo)}/super-squash/main", {})
    assert hub.request("DELETE", f"{hub.api(repo)}/discussions/{number}/ref").status == 200
    before = details(hub, repo, number)
    hub.prune(repo)
    after = details(hub, repo, number)
    assert "p.txt" in before["diff"] and after["diff"] == ""
    assert [item["type"] for item in before["events"]] == ["commit", "status-change"]
    assert [item["type"] for item in after["events"]] == ["status-change"]
    assert after["changes"] == before["changes"] and after["status"] == "merged"


def test_a_reader_cannot_merge_and_parallel_merges_move_the_branch_once(hub, repo):
    number = propose(hub, repo, {"p.txt": b"p"})
    for token, status in ((None, 401), ("reader", 403), ("other", 403)):
        assert merge(hub, repo, number, token).status == status
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        seen = sorted(answer.status for answer in pool.map(lambda _: merge(hub, repo, number), range(4)))
    assert seen == [200, 400, 400, 400]
    assert len(hub.history(repo)) == 2


def test_pull_request_against_another_branch(hub, repo):
    hub.branch(repo, "dev")
    number = propose(hub, repo, {"p.txt": b"p"}, branch="dev")
    assert details(hub, repo, number)["changes"]["base"] == "refs/heads/dev"
    main = hub.head(repo)
    assert merge(hub, repo, number).status == 200
    assert (hub.head(repo), hub.content(repo, "p.txt", "dev")) == (main, b"p")
    hub.call("DELETE", f"{hub.api(repo)}/branch/dev")
    assert details(hub, repo, number)["status"] == "merged"
    other = propose(hub, repo, {"q.txt": b"q"})
    hub.set_ref(repo, f"refs/pr/{other}", None)
    assert details(hub, repo, other)["filesWithConflicts"] is True and merge(hub, repo, other).status == 409
