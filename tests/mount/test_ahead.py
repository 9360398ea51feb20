"""Large files are sent ahead of their commit: it costs no request more, and what is overwritten was sent in vain."""

import random
import time

import harness

LARGE = random.Random(1).randbytes(9 << 20)
OTHER = random.Random(2).randbytes(9 << 20)


def seen(hub, seq, method, part):
    return [item for item in hub.requests(since=seq) if item["method"] == method and part in item["path"]]


def test_it_is_there_before_the_quiet_period_ends(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=4")
    m.ls("main")
    seq = hub.last_seq()
    m.write("main/model.safetensors", LARGE)
    m.write("main/config.json", b"{}")
    harness.eventually(lambda: seen(hub, seq, "PUT", ""), 3, "the upload")
    assert repo.published() == []
    repo.wait_published()
    assert repo.content("model.safetensors") == LARGE and repo.content("config.json") == b"{}"
    assert len(seen(hub, seq, "PUT", "")) == 1 and len(seen(hub, seq, "POST", "/objects/batch")) == 1
    assert len(seen(hub, seq, "POST", "/commit/")) == 1
    assert len(seen(hub, seq, "POST", "/preupload/")) <= 2  # config.json was closed later


def test_what_is_overwritten_is_never_wrong(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=3", "open_wait=5")
    seq = hub.last_seq()
    m.write("main/model.bin", LARGE)
    harness.eventually(lambda: seen(hub, seq, "PUT", ""), 3, "the upload")
    m.write("main/model.bin", OTHER)
    m.py("""
        with open('main/model.bin', 'r+b') as file:
            file.seek(100)
            file.write(b'edited')
        """)
    repo.wait_published()
    assert repo.content("model.bin") == OTHER[:100] + b"edited" + OTHER[106:]


def test_a_slow_upload_is_waited_for(mount, box, hub):
    """The commit that comes due goes on with it, instead of beginning anew."""
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=0.5")
    seq = hub.last_seq()
    hub.fault("", method="PUT", origin="data", delay_ms=2500)
    m.write("main/model.bin", LARGE)
    repo.wait_published()
    assert repo.content("model.bin") == LARGE and len(seen(hub, seq, "PUT", "")) == 1


def test_discard_ends_it(mount, box, hub):
    repo = box.repo({"a.txt": b"1"})
    m = mount(repo.uri, "commit_delay=60")
    stalled = hub.fault("", method="PUT", origin="data", stall=True)
    m.write("main/model.bin", LARGE)
    hub.wait_for(lambda items: any(item["fault"] == stalled for item in items))
    box.hugfs("discard", "-y", m.path("main"))
    hub.clear_faults()
    assert not m.exists("main/model.bin") and repo.published() == []


def test_nothing_leaves_the_machine_otherwise(mount, box, hub):
    for options in (("commit=manual",), ("commit=fsync",), ("commit_delay=60", "commit=sync")):
        repo = box.repo({"a.txt": b"1"})
        m = mount(repo.uri, *options)
        m.ls("main")
        seq = hub.last_seq()
        m.sh("head -c 9000000 /dev/zero > main/x.tmp") if "commit=sync" in options else m.write("main/m.bin", LARGE)
        time.sleep(0.5)
        assert [item for item in hub.requests(since=seq) if item["method"] in ("POST", "PUT")] == []
        m.unmount()
