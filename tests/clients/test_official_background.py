"""The unmodified huggingface_hub client: commits behind the program's back, uploads long before them."""

import os
import threading

from examiner import CALLS, Counted
from huggingface_hub import CommitOperationAdd, CommitScheduler, __version__


class Ticking(CommitScheduler):
    """Tells when its thread has asked for the first commit. The client does them in the order of asking."""

    ticked = threading.Event()

    def trigger(self):
        future = super().trigger()
        self.ticked.set()
        return future


def test_commit_scheduler(hub, repo, tmp_path):
    """One commit for what was written since the last, none when nothing was."""
    log = tmp_path / "log.txt"
    log.write_text("first\n")
    scheduler = Counted(
        Ticking(
            repo_id=repo,
            folder_path=tmp_path,
            every=1000,
            path_in_repo="logs",
            allow_patterns=["*.txt", "*.bin"],
        ),
        "CommitScheduler",
    )
    assert scheduler.ticked.wait(30)
    scheduler.trigger().result()
    assert hub.content(repo, "logs/log.txt") == b"first\n"
    since = hub.last_seq()
    scheduler.trigger().result()
    assert hub.requests(since, method="POST") == []
    with scheduler.lock, log.open("a") as file:
        file.write("second\n")
    (tmp_path / "w.bin").write_bytes(os.urandom(3000))
    (tmp_path / "left.out").write_bytes(b"x")
    scheduler.trigger().result()
    scheduler.stop()
    assert hub.content(repo, "logs/log.txt") == b"first\nsecond\n"
    assert hub.content(repo, "logs/w.bin") == (tmp_path / "w.bin").read_bytes()
    assert [title for _, title in hub.history(repo)] == ["Scheduled Commit"] * 2 + ["initial commit"]


def test_commit_scheduler_by_time_makes_its_repo_and_squashes(hub, new_id, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a")
    CALLS["CommitScheduler(squash_history)"] += 1
    with CommitScheduler(
        repo_id=new_id,
        repo_type="dataset",
        folder_path=tmp_path,
        every=1 / 600,
        private=True,
        squash_history=True,
    ) as scheduler:
        hub.wait_for(
            lambda seen: any(item["path"].endswith("/super-squash/main") and item["end"] for item in seen)
        )
    scheduler.stop()
    assert hub.content(new_id, "a.txt", type="dataset") == b"a"
    assert len(hub.history(new_id, type="dataset")) <= 2


def test_objects_uploaded_long_before_their_commit(hub, api, repo):
    """Other commits and a garbage collection come between; then nothing is uploaded again."""
    additions = [CommitOperationAdd(f"w{n}.bin", os.urandom(2000)) for n in range(3)]
    additions.append(CommitOperationAdd("big.bin", os.urandom(6_100_000)))
    additions.append(CommitOperationAdd("t.txt", b"text"))
    contents = {item.path_in_repo: item.path_or_fileobj for item in additions}
    api.preupload_lfs_files(repo, additions)
    hub.commit(repo, {"between.txt": b"x"})
    hub.git(repo, "gc", "--quiet", "--prune=now")
    since = hub.last_seq()
    api.create_commit(repo, additions, commit_message="late", parent_commit=hub.head(repo))
    assert hub.requests(since, method="PUT") == []
    assert {path: hub.content(repo, path) for path in contents} == contents
    assert hub.git(repo, "fsck", "--strict") == b""


if __version__.startswith("1."):

    def test_upload_large_folder(hub, api, new_id, tmp_path):
        files = {f"part{n % 4}/f{n}.txt": b"%d" % n for n in range(60)}
        files |= {f"w{n}.safetensors": os.urandom(20_000) for n in range(6)} | {
            "big.bin": os.urandom(7_000_000)
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        for _ in range(2):
            api.upload_large_folder(
                new_id,
                folder_path=tmp_path,
                repo_type="dataset",
                num_workers=4,
                private=True,
                print_report=False,
            )
        assert sorted(hub.paths(new_id, type="dataset")) == sorted([*files, ".gitattributes"])
        assert all(hub.content(new_id, name, type="dataset") == content for name, content in files.items())
        assert hub.git(new_id, "fsck", "--strict", type="dataset") == b""
