"""Refusals of the Hub: each has its errno, a sentence that names the thing and the cure, and all of it stays staged."""

import json

import pytest

ENTRIES = ("Your push was rejected because it contains too many files per directory. Each directory in your git repo can "
           "only contain up to 10000 files.")
LARGE = "Your push was rejected because it contains files larger than 10 MiB. Please use LFS: model.txt"
STORAGE = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit."
COMMITS = ("You have exceeded the rate limit for repository commits (128 per hour). You can retry this action in about "
           "1 hour.")


def state(box, m):
    return json.loads(box.hugfs("status", "--json", m.path("main")).out)["mounts"][0]["revisions"][0]


@pytest.mark.parametrize("status, said, errno, words", [
    (400, ENTRIES, "EMLINK", "10,000"),
    (400, LARGE, "EFBIG", "10 MiB"),
    (403, STORAGE, "EDQUOT", "storage limit"),
    (429, COMMITS, "EDQUOT", "128 per hour"),
    (403, "Forbidden: you must be a member of this organization", "EACCES", "member of this organization"),
    (403, "Access to this resource is disabled.", "EACCES", "disabled"),
    (400, "Something that nobody has heard of", "EINVAL", "nobody has heard of"),
], ids=["entries", "large", "storage", "commits", "member", "disabled", "unknown"])
def test_a_refused_commit(mount, box, hub, status, said, errno, words):
    box.expect("not published|committing")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit=fsync")
    hub.fault(f"/{repo.id}/commit/", method="POST", status=status, body={"error": said}, times=2)
    assert m.py("""
        file = open('main/new.txt', 'wb', 0)
        file.write(b'new')
        print(outcome(os.fsync, file))
        """) == errno + "\n"
    refused = box.hugfs("commit", m.path("main"), check=False)
    assert refused.status == 1 and words in refused.err, refused
    seen = state(box, m)
    assert seen["last_error"] == errno and seen["staged"]["files"] == 1 and m.read("main/new.txt") == b"new"
    # The cause has gone: nothing was lost.
    hub.clear_faults()
    box.hugfs("commit", m.path("main"))
    assert repo.files() == {"a.txt": b"1", "new.txt": b"new"} and len(repo.published()) == 1


def test_bad_metadata_is_shown_in_the_hubs_words(mount, box):
    box.expect("not published|committing")
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit=manual")
    m.write("main/README.md", b"---\nlicense: [unclosed\n---\n# Model\n")
    refused = box.hugfs("commit", m.path("main"), check=False)
    assert refused.status == 1 and "README.md" in refused.err, refused
    assert state(box, m)["last_error"] == "EINVAL" and state(box, m)["staged"]["files"] == 1
    # The next close of the file tells of it once.
    assert m.py("""
        file = open('main/README.md', 'w')
        file.write('---\\nlicense: mit\\n---\\n# Model\\n')
        print(outcome(file.close))
        """) == "EINVAL\n"
    box.hugfs("commit", m.path("main"))
    assert repo.content("README.md").endswith(b"# Model\n")


def test_a_branch_that_is_gone(mount, box, hub):
    box.expect("not published|gone|no such revision")
    repo = box.repo({"a.txt": b"1"})
    hub.branch(repo.id, "dev")
    m = mount(repo.uri, "commit=manual", "poll=0.2")
    m.sh("echo new > dev/new.txt")
    hub.call("DELETE", f"/api/models/{repo.id}/branch/dev")
    refused = box.hugfs("commit", m.path("dev"), check=False)
    assert refused.status == 1 and "dev" in refused.err, refused
    hub.branch(repo.id, "dev")
    repo.mark("dev")
    box.hugfs("commit", m.path("dev"))
    assert repo.content("new.txt", "dev") == b"new\n"
