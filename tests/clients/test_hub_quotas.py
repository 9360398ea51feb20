"""The quotas of the test Hub: requests per bucket in fixed windows, actions, and what a refusal says."""

import re
import time

import pytest
from client import Hub


def window(answer):
    """(bucket, remaining, seconds until it is over, quota, width) of an answer."""
    first = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    policy = re.fullmatch(r'"fixed window";"(\w+)";q=(\d+);w=(\d+)', answer.headers["RateLimit-Policy"])
    assert first[1] == policy[1]
    return first[1], int(first[2]), int(first[3]), int(policy[2]), int(policy[3])


@pytest.fixture
def buckets(hub, repo):
    """One target for each bucket."""
    return {
        "api": f"{hub.api(repo)}/refs",
        "resolvers": f"/{repo}/resolve/main/.gitattributes",
        "pages": f"/{repo}",
    }


def test_every_answer_counts_in_its_bucket(hub, repo, buckets):
    hub.config(rate_quota={"api": 1000, "resolvers": 5000, "pages": 200})
    targets = [
        *buckets.items(),
        ("api", "/api/nonsense"),
        ("resolvers", f"/api/resolve-cache/models/{repo}/x/y"),
        ("resolvers", "/user/unknown/resolve/main/x"),
    ]
    for bucket, target in targets:
        before, after = (window(hub.request("GET", target)) for _ in range(2))
        assert before[0] == bucket and before[1] - after[1] == 1 and before[3:] == after[3:]
        assert (after[3], after[4]) == ({"api": 1000, "resolvers": 5000, "pages": 200}[bucket], 300)
        assert 0 < after[2] <= 300
    assert window(hub.request("GET", buckets["api"], token="hf_wrong"))[0] == "api"


def test_each_account_has_its_own_count(hub, buckets):
    hub.config(rate_quota={"api": 77})
    left = [
        window(hub.request("GET", buckets["api"], token=token))[1]
        for token in ("user", "other", None, "other")
    ]
    assert left == [76, 76, 76, 75]


@pytest.mark.parametrize("lfs", ["api", "pages", "resolvers"])
def test_the_bucket_of_lfs(hub, repo, lfs):
    hub.config(lfs_bucket=lfs)
    answer = hub.request(
        "POST", f"/{repo}.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}
    )
    assert (answer.status, window(answer)[0]) == (200, lfs)


def test_a_window_ends_and_the_next_begins(hub, buckets):
    hub.config(rate_quota={"api": 3}, rate_window_s=1.0)
    answers = [hub.request("GET", buckets["api"], token="reader") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [window(answer)[1] for answer in answers] == [2, 1, 0, 0, 0]
    assert "you hit the quota of 3 api requests" in answers[3].json()["error"]
    assert hub.request("GET", buckets["resolvers"], token="reader").status != 429
    time.sleep(window(answers[4])[2])
    assert hub.request("GET", buckets["api"], token="reader").status == 200


@pytest.mark.parametrize("where", ["header", "text"])
def test_commits_per_hour(hub, repo, where):
    hub.config(
        action_quota={"commit": 2}, action_window_s=3600 if where == "text" else 3601, action_wait=where
    )
    hub.commit(repo, {"a": b"a"})
    hub.commit(repo, {"b": b"b"})
    lines = b'{"key":"header","value":{"summary":"s"}}\n{"key":"file","value":{"path":"c","content":"c"}}\n'
    answer = hub.request("POST", f"{hub.api(repo)}/commit/main", lines)
    assert answer.status == 429 and window(answer)[1] > 0
    assert answer.json()["error"] == (
        "You have exceeded the rate limit for repository commits (2 per hour). "
        "You can retry this action in about 1 hour."
    )
    assert (answer.headers["Retry-After"] is not None) == (where == "header")
    assert len(hub.history(repo)) == 3
    hub.config(action_quota={"commit": None})
    hub.commit(repo, {"c": b"c"})


def test_other_actions(hub, new_id):
    hub.config(action_quota={"create": 0, "discussion": 0})
    body = {"name": new_id.partition("/")[2], "organization": "user"}
    answer = hub.request("POST", "/api/repos/create", body)
    assert answer.status == 429 and "repository creation" in answer.json()["error"]
    hub.config(action_quota={"create": None})
    hub.create_repo(new_id)
    answer = hub.request("POST", f"{hub.api(new_id)}/discussions", {"title": "title", "pullRequest": True})
    assert answer.status == 429


def test_quotas_from_the_command_line(tmp_path):
    options = {
        "rate_quota": "api=7,pages=5",
        "rate_window_s": 2.5,
        "action_quota": "commit=1",
        "storage_quota": "private=9",
    }
    with Hub(tmp_path / "hub", **options) as hub:
        answer = hub.request("GET", "/api/models")
        assert window(answer)[3:] == (7, 3) and window(answer)[1] == 6
        assert window(hub.request("GET", "/user/model"))[3] == 5
        settings = hub.config()
        assert settings["action_quota"] == {"commit": 1, "create": None, "discussion": None}
        assert settings["storage_quota"] == {"private": 9, "public": None}
        assert settings["rate_quota"]["resolvers"] == 1_000_000
