"""The Hub's rules and quotas, as a program meets them: the right errno, nothing lost, no storm of requests."""

import time

import pytest

import harness
from harness import noise

FSYNC = """
    with open(sys.argv[1], 'wb') as file:
        file.write(sys.stdin.buffer.read())
        print(outcome(lambda: (file.flush(), os.fsync(file.fileno()))))
    """


def fsync(mount, path, data, **options):
    """The errno of an fsync of a new file."""
    return mount.py(FSYNC, "main/" + path, stdin=data, **options).strip()


# Rules

RULES = {
    "a large regular file": ({"max_regular_size": 5000}, "plain.txt", b"x" * 6000, "EFBIG"),
    "a full folder": ({"max_folder_entries": 3}, "full/4", b"4", "EMLINK"),
    "a large LFS file": ({"max_file_size": 400_000}, "large.bin", noise(500_000), "EFBIG"),
    "metadata that is wrong": ({}, "README.md", b'---\nbase_model: ""\n---\n', "EINVAL"),
    "no private storage": ({"storage_quota": {"private": 100}}, "w.bin", noise(200), "EDQUOT"),
    "no private storage, by object": (
        {"storage_quota": {"private": 100}, "storage_refusal": "object"},
        "w.bin",
        noise(200),
        "EDQUOT",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_a_rule_refuses_stays_here(mount, box, hub, rule):
    """The file keeps its bytes and says what is wrong; without the rule it is published."""
    settings, path, content, errno = RULES[rule]
    defaults = hub.config()
    repo = box.repo({f"full/{number}": b"x" for number in range(3)}, private=True)
    m = mount(repo.uri, "commit=fsync")
    hub.config(**settings)
    box.expect(r"(warn|err) ")
    assert fsync(m, path, content) == errno
    assert repo.published() == [] and m.read("main/" + path) == content
    assert m.xattr("main/" + path, "state") == "staged" and m.xattr("main/" + path, "error")
    if path == "README.md":
        content = b"---\nlicense: mit\n---\n"
        m.write("main/" + path, content)
    hub.config(**defaults)
    box.hugfs("commit", m.path("main"))
    assert repo.content(path) == content and len(repo.published()) == 1


def test_public_storage_that_is_full(mount, box, hub):
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=fsync")
    hub.config(storage_quota={"public": 100})
    box.expect(r"(warn|err) ")
    assert fsync(m, "w.bin", noise(200)) == "EDQUOT"


# Quotas


def refusals(hub, since):
    return hub.requests(since=since, status=429)


def test_a_quota_of_requests_is_waited_for(mount, box, hub):
    """More folders than the quota has requests: slower, but complete, and without a storm."""
    repo = box.repo({f"d{number}/f": b"%d" % number for number in range(60)})
    m = mount(repo.uri)
    m.ls("main")
    box.expect(r"warn ")
    hub.config(rate_quota={"api": 25}, rate_window_s=2.0)
    seq = hub.last_seq()
    files = m.files("main")
    assert {path: data for path, data in files.items() if path != ".gitattributes"} == {
        f"d{number}/f": b"%d" % number for number in range(60)
    }
    assert len(refusals(hub, seq)) <= 12


@pytest.mark.parametrize("where", ["header", "text"])
def test_a_quota_of_commits_is_waited_for(mount, box, hub, where):
    """EDQUOT for who waits for the commit; what is staged is published when the hour is over."""
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit_delay=0.2")
    box.expect(r"(warn|err) ")
    hub.config(
        action_quota={"commit": 1}, action_window_s=6.0 if where == "header" else 7.0, action_wait=where
    )
    assert fsync(m, "b.txt", b"b") == "0"
    began = time.monotonic()
    assert fsync(m, "c.txt", b"c") == "EDQUOT"
    assert time.monotonic() - began < 4
    seq = hub.last_seq()
    if where == "text":  # "in about 1 hour": somebody has to say when
        hub.config(action_quota={"commit": None})
        box.hugfs("commit", m.path("main"))
    harness.eventually(lambda: "c.txt" in repo.paths(), 30)
    assert len(refusals(hub, seq)) <= 3 and len(repo.published()) == 2


# Bodies and URLs that are not what they seem


@pytest.mark.parametrize("mode", ["chunked", "length"])
def test_the_gzip_trap_is_not_met(mount, box, hub, mode):
    """hugfs asks for bytes as they are, so that ranges and sizes are those of the file."""
    hub.config(gzip=mode)
    text = noise(300_000).hex().encode()
    repo = box.repo({"t.txt": text, "d/x.json": b'{"x": ' + b"1" * 5000 + b"}"})
    m = mount(repo.uri, "commit_delay=0.2")
    assert (
        m.py("file = open('main/t.txt', 'rb'); file.seek(200_000); sys.stdout.write(file.read(99).decode())")
        == text[200_000:200_099].decode()
    )
    assert m.read("main/t.txt") == text and m.ls("main/d") == ["x.json"]
    assert fsync(m, "new.txt", text) == "0" and repo.content("new.txt") == text


@pytest.mark.parametrize("style", ["s3", "cloudfront"])
@pytest.mark.parametrize("age", [3550, 3599, 3600])
def test_urls_that_were_signed_long_ago(mount, box, hub, style, age):
    """Used while they are good, asked for again before they end; a URL that is born dead is EACCES."""
    hub.config(signature_style=style)
    content = noise(3_000_000)
    repo = box.repo({"w.bin": content, "v.bin": noise(10_000)})
    m = mount(repo.uri)
    m.ls("main")
    hub.config(signature_age_s=age)
    box.expect(r"(warn|err) ")
    if age == 3600:
        assert m.outcome("open('main/v.bin', 'rb').read()") == "EACCES"
        hub.config(signature_age_s=0)
    assert m.read("main/w.bin") == content and m.read("main/v.bin") == noise(10_000)


@pytest.mark.parametrize("style", ["s3", "cloudfront"])
def test_a_part_that_comes_too_late(mount, box, hub, style):
    """Its URL has expired; the upload begins anew and ends well."""
    hub.config(signature_style=style, multipart_threshold=1 << 20, chunk_size=1 << 20, upload_lifetime_s=2)
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=fsync")
    fault = hub.fault(origin="data", method="PUT", path="/uploads/", skip=6, delay_ms=2500)
    content, seq = noise(9 << 20), hub.last_seq()
    assert fsync(m, "w.bin", content, timeout=50) == "0"
    assert [item["status"] for item in hub.requests(since=seq) if item["fault"] == fault] == [403]
    assert repo.content("w.bin") == content and len(repo.published()) == 1


def test_an_upload_that_takes_longer_than_its_urls_live(mount, box, hub):
    """An error that says so instead of one upload after the other; it stays staged."""
    hub.config(multipart_threshold=1 << 20, chunk_size=1 << 20, upload_lifetime_s=2)
    repo = box.repo({"a.txt": b"a"})
    m = mount(repo.uri, "commit=fsync")
    fault = hub.fault(origin="data", method="PUT", path="/uploads/", times=-1, delay_ms=1200)
    box.expect(r"(warn|err) ")
    content, seq = noise(20 << 20), hub.last_seq()
    assert fsync(m, "w.bin", content, timeout=50) == "EFBIG"
    assert len([item for item in hub.requests(since=seq) if item["path"].endswith("/batch")]) == 2
    assert "longer than" in m.xattr("main/w.bin", "error") and repo.published() == []
    hub.clear_faults(fault)
    hub.config(upload_lifetime_s=900)
    box.hugfs("commit", m.path("main"))
    assert repo.content("w.bin") == content and len(repo.published()) == 1
