"""What nobody has seen the real Hub do: one session of work for each answer that the test Hub can give."""

import concurrent.futures
import random

import pytest
from switches import SWITCHES

import harness

ANSWERS = [(name, value) for name, switch in SWITCHES.items() for value in switch.others]
WEIGHTS = random.Random(1).randbytes(300_000)
FILES = {
    "config.json": b"{}\n",
    "w.safetensors": WEIGHTS,
    "d/a.txt": b"a",
    "d/e/b.txt": b"b",
    "empty": b"",
    "ü.txt": b"u",
}


def commits(seen):
    return [item for item in seen if "/commit/" in item["path"]]


@pytest.mark.parametrize("name, value", ANSWERS, ids=[f"{name}-{value}" for name, value in ANSWERS])
def test_a_session_of_work(mount, box, hub, name, value):
    """Under an old name of the repository: all is read, changes of every kind arrive, somebody else's too."""
    hub.config(**{name: value})
    old = box.repo(FILES, private=name == "private_resolve_cache")
    hub.branch(old.id, "both")
    hub.tag(old.id, "v1", message="first")
    names = [old.id, old.id + "-a", old.id + "-b"]
    for now, then in zip(names, names[1:]):
        hub.move_repo(now, then)
    repo = harness.Repo(hub, names[-1], "model")
    repo.mark()

    m = mount(old.uri + "@main", "poll=1")
    assert {path: data for path, data in m.files().items() if path != ".gitattributes"} == FILES
    m.sh("""
        echo new > new.txt
        head -c 200000 /dev/zero > new.bin
        cp w.safetensors copy.safetensors
        echo '{"a": 1}' > config.json
        cp d/a.txt d/same && cat d/same > d/a.txt && rm d/same
        mv d moved
        mkdir deep && mv empty deep/empty
        rm ü.txt
        stat --file-system . > /dev/null
        sync new.txt new.bin config.json
        """)
    wanted = {
        "new.txt": b"new\n",
        "new.bin": bytes(200_000),
        "copy.safetensors": WEIGHTS,
        "w.safetensors": WEIGHTS,
        "config.json": b'{"a": 1}\n',
        "moved/a.txt": b"a",
        "moved/e/b.txt": b"b",
        "deep/empty": b"",
    }
    harness.eventually(lambda: repo.files() == wanted, 30, "the publication")
    repo.push({"theirs.txt": b"theirs"})
    harness.eventually(lambda: m.exists("theirs.txt"), 30, "somebody else's file")
    assert m.read("theirs.txt") == b"theirs" and m.read("copy.safetensors") == WEIGHTS
    m.unmount()
    assert repo.files() == wanted | {"theirs.txt": b"theirs"}
    assert hub.git(repo.id, "fsck", "--strict", "--no-dangling") == b""


@pytest.mark.parametrize("value", [400, 403])
def test_a_tag_is_read_only(mount, box, hub, value):
    hub.config(read_only_status=value)
    repo = box.repo(FILES)
    hub.tag(repo.id, "v1", message="first")
    m = mount(repo.uri + "@v1")
    assert m.outcome("open('new', 'w')") == "EROFS" and m.read("d/a.txt") == b"a"


@pytest.mark.parametrize("value", ["branch", "tag"])
def test_a_branch_and_a_tag_of_one_name(mount, box, hub, value):
    """The mount takes heads from the list of refs: it is the branch, whatever the name alone would give."""
    repo = box.repo({"x": b"tag"})
    hub.tag(repo.id, "both")
    hub.branch(repo.id, "both")
    hub.commit(repo.id, {"x": b"branch"}, "both")
    hub.config(same_name=value)
    m = mount(repo.uri + "@both")
    assert m.read("x") == b"branch"
    m.write("y", b"y")
    m.unmount()
    assert hub.content(repo.id, "y", "refs/heads/both") == b"y"


@pytest.mark.parametrize("switch, path", [("ignored_files", "x.log"), ("cache_folder", "d/.cache/x")])
@pytest.mark.parametrize("answer", ["accept", "refuse"])
def test_names_that_the_hub_perhaps_refuses(box, hub, mount, switch, path, answer):
    """What is refused stays staged; without it, all else is published."""
    repo = box.repo({"a.txt": b"a", ".gitignore": b"*.log\n"})
    hub.config(**{switch: answer})
    m = mount(repo.uri, "commit=fsync", "ignore=!.cache/")
    box.expect(r"(warn|err) ")
    m.write("main/b.txt", b"b")
    m.sh("mkdir -p main/d/.cache")
    outcome = m.py(
        """
        with open(sys.argv[1], 'w') as file:
            print(outcome(lambda: (file.write('x'), file.flush(), os.fsync(file.fileno()))))
        """,
        "main/" + path,
    ).strip()
    assert outcome == ("0" if answer == "accept" else "EINVAL")
    if answer == "refuse":
        assert repo.published() == [] and m.read("main/" + path) == b"x"
        m.sh(f"rm 'main/{path}'")
        box.hugfs("commit", m.path("main"))
    assert repo.content("b.txt") == b"b" and (path in repo.paths()) == (answer == "accept")


@pytest.mark.parametrize("answer", ["lands", "fails"])
def test_a_commit_beyond_the_time_limit(box, hub, mount, answer):
    """504, and the commit lands later, or never: once all the same."""
    repo = box.repo({"a.txt": b"a"})
    hub.config(late_commit=answer, commit_takes_ms=1500, time_limit_ms=500)
    m = mount(repo.uri, "commit=fsync")
    box.expect(r"(warn|err) ")
    child = m.start_py("""
        with open('main/b.txt', 'w') as file:
            file.write('b')
            file.flush()
            say(outcome(os.fsync, file.fileno()))
        """)
    hub.wait_for(lambda seen: [item for item in seen if "/commit/" in item["path"] and item["status"] == 504])
    hub.config(commit_takes_ms=0)
    child.expect("0")
    child.finish()
    assert repo.files() == {"a.txt": b"a", "b.txt": b"b"} and len(repo.published()) == 1


@pytest.mark.parametrize("lock", ["branch", "repository", "none"])
def test_somebody_elses_commit_is_under_way(box, hub, mount, lock):
    """409 for as long as it takes; then ours, on top of it."""
    repo = box.repo({"a.txt": b"a"})
    hub.branch(repo.id, "dev")
    m = mount(repo.uri, "commit=fsync")
    m.ls("main")
    hub.config(commit_lock=lock, commit_takes_ms=60_000)
    box.expect(r"(warn|err) ")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        seq = hub.last_seq()
        theirs = pool.submit(hub.commit, repo.id, {"theirs.txt": b"theirs"})
        hub.wait_for(lambda seen: commits(seen), since=seq)
        child = m.start_py("""
            with open('main/b.txt', 'w') as file:
                file.write('b')
                file.flush()
                say(outcome(os.fsync, file.fileno()))
            """)
        hub.wait_for(lambda seen: len(commits(seen)) >= 2, since=seq)
        if lock != "none":
            hub.wait_for(lambda seen: 409 in {item["status"] for item in commits(seen)}, since=seq)
        hub.config(commit_takes_ms=0)
        theirs.result()
        child.expect("0")
        child.finish()
    assert repo.files() == {"a.txt": b"a", "b.txt": b"b", "theirs.txt": b"theirs"}
    assert len(repo.published()) == 2


@pytest.mark.parametrize("names", ["as_given", "nfc"])
def test_a_name_that_the_hub_perhaps_spells_otherwise(mount, box, hub, names):
    """It keeps its bytes, and after a refresh it has the name that the Hub gave it."""
    hub.config(unicode_names=names)
    repo = box.repo({"a.txt": b"a"})
    decomposed, composed = "u\u0308.txt", "\xfc.txt"
    m = mount(repo.uri, "commit=fsync", "poll=1")
    m.ls("main")
    assert (
        m.py(
            """
        with open(sys.argv[1], 'w') as file:
            file.write('text')
            file.flush()
            print(outcome(os.fsync, file.fileno()))
        """,
            "main/" + decomposed,
        ).strip()
        == "0"
    )
    kept = composed if names == "nfc" else decomposed
    assert repo.paths() == ["a.txt", kept]
    repo.push({"theirs.txt": b"theirs"})
    harness.eventually(lambda: m.exists("main/theirs.txt"), 30, "somebody else's file")
    assert [name for name in m.ls("main") if name in (composed, decomposed)] == [kept]
    assert m.read("main/" + kept) == b"text"
    m.sh(f"mv 'main/{kept}' main/plain.txt && sync main/plain.txt")
    assert repo.files() == {"a.txt": b"a", "plain.txt": b"text", "theirs.txt": b"theirs"}
