"""Two machines at one branch: mounts with a staging area and a cache each, which know of each other only what the Hub says."""

import concurrent.futures

import pytest


def machine(box, repo, name):
    """A mount of a machine of its own, which never looks by itself whether the branch moved."""
    folders = [f"{kind}_dir={box.folder(f'{name}-{kind}', 0o700)}" for kind in ("staging", "cache")]
    return box.mount(repo.uri, "commit=manual", "poll=3600", *folders, name=name)


def write_and_commit(box, m, name, number):
    m.write(f"main/{name}/{number}.txt", f"{name} {number}".encode())
    done = box.hugfs("commit", m.path("main"), check=False)
    assert done.status == 0, done


@pytest.mark.limit(150)
@pytest.mark.parametrize("at_once, rounds", [(False, 100), (True, 30)], ids=["in turn", "at once"])
def test_disjoint_files_of_two_machines(box, hub, at_once, rounds):
    """Every commit of one finds the branch moved by the other, in the middle of it when both work at once; no
    program sees that."""
    box.expect("the branch was changed by somebody else|another operation on the repository is under way")
    repo = box.repo({"one/0.txt": b"", "two/0.txt": b""})
    one, two = machine(box, repo, "one"), machine(box, repo, "two")
    seq = hub.last_seq()

    def work(m, name):
        for number in range(1, rounds + 1):
            write_and_commit(box, m, name, number)

    if at_once:
        hub.fault(f"{repo.id}/commit/", method="POST", delay_ms=50, times=-1)  # time for the other one's to land
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(work, (one, two), ("one", "two")))
    else:
        for number in range(1, rounds + 1):
            write_and_commit(box, one, "one", number)
            write_and_commit(box, two, "two", number)
    assert len(repo.published()) == 2 * rounds
    assert repo.files() == {f"{name}/{number}.txt": f"{name} {number}".encode() if number else b""
                            for name in ("one", "two") for number in range(rounds + 1)}
    posts = [item["status"] for item in hub.requests(since=seq, method="POST") if "/commit/" in item["path"]]
    assert posts.count(200) == 2 * rounds
    assert not at_once or posts.count(412) + posts.count(409) > 0, "the machines never met"
