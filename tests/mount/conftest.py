"""Fixtures of the mount tests: `hub`, `box` (one test's world, see harness.py) and `mount`, which makes mounts in it.

    HUGFS_BIN=build/fs/hugfs python3 -m pytest tests/mount [--as-user]

With --as-user (or HUGFS_AS_USER=1), for which pytest must run as root, the daemon and every file operation run as
the user `hugfstest`. As root, dead mounts are ended through a fusectl file system of our own.
"""

import copy
import os
import pwd
import signal
import subprocess
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "hub")]

import harness  # noqa: E402  (the paths come first)

SOURCE_ROOT = os.path.dirname(os.path.dirname(HERE))


def pytest_addoption(parser):
    parser.addoption("--as-user", action="store_true", default=os.environ.get("HUGFS_AS_USER") == "1",
                     help="run the daemon and the file operations as an ordinary user")
    parser.addoption("--crash-rounds", type=int, default=50, help="rounds of test_cache_crash.py")
    parser.addoption("--crash-seed", type=int, default=0, help="repeat the rounds of a failed run of test_cache_crash.py")
    parser.addoption("--keep", action="store_true", help="keep the folders of the tests' worlds")


def pytest_ignore_collect(collection_path, config):
    """These run as root whoever the others run as: once is enough."""
    return True if collection_path.name == "test_machine_learning.py" and config.getoption("--as-user") else None


def pytest_configure(config):
    # A shell starts what it puts into the background with SIGINT ignored, and that would reach every program of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "limit(seconds): how long a mount of this test may live")


@pytest.fixture(scope="session")
def fuse_device():
    """/dev/fuse as distributions have it: usable by everybody."""
    mode = os.stat("/dev/fuse").st_mode & 0o777
    if mode != 0o666 and os.getuid() == 0:
        os.chmod("/dev/fuse", 0o666)
    yield
    if mode != 0o666 and os.getuid() == 0:
        os.chmod("/dev/fuse", mode)


@pytest.fixture(scope="session")
def session(request, fuse_device):
    """The Hub, and a copy of the binary in a place that every user can reach."""
    binary = os.path.abspath(os.environ.get("HUGFS_BIN") or os.path.join(SOURCE_ROOT, "build", "fs", "hugfs"))
    as_user = request.config.getoption("--as-user")
    if as_user and os.getuid() != 0:
        pytest.exit("--as-user needs root to become that user", 2)
    account = harness.ordinary_user() if as_user else harness.Account(pwd.getpwuid(os.getuid()).pw_name)
    with tempfile.TemporaryDirectory(prefix="hugfs-session-") as folder, harness.Hub() as hub:
        os.chmod(folder, 0o755)
        connections = os.path.join(folder, "connections")
        os.mkdir(connections)
        if os.getuid() == 0:
            subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], check=True)
        try:
            yield harness.Session(binary, hub, account, connections, folder)
            leaks = [item for item in hub.requests(origin="data") if item["token"] or item["cookie"]]
            assert not leaks, f"{len(leaks)} requests to the data origin carried a credential: {leaks[:3]}"
        finally:
            if os.getuid() == 0:
                subprocess.run(["umount", connections], check=True)


@pytest.fixture
def hub(session):
    """The Hub without faults and with its default settings."""
    settings = session.hub.config()
    yield session.hub
    session.hub.clear_faults()
    session.hub.config(**settings)


def _box(request, session, account):
    marker = request.node.get_closest_marker("limit")
    box = harness.Box(session, account, *(marker.args if marker else ()))
    request.node.boxes = [*getattr(request.node, "boxes", []), box]
    yield box
    session.hub.clear_faults()
    problems = box.close(keep=request.config.getoption("--keep"))
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def box(request, session, hub):
    """The test's world."""
    yield from _box(request, session, session.account)


@pytest.fixture
def user_box(request, session, hub):
    """A world of an ordinary user, also when the tests run as root."""
    yield from _box(request, session, harness.ordinary_user() if os.getuid() == 0 else session.account)


@pytest.fixture
def root_box(request, session, hub):
    """A world of root."""
    yield from _box(request, session, harness.Account("root"))


@pytest.fixture
def make_box(request, session):
    """A function that makes the world of another Hub: for `yield from`, or a loop with one turn."""
    def make(hub):
        other = copy.copy(session)
        other.hub = hub
        return _box(request, other, session.account)
    return make


@pytest.fixture
def mount(box):
    """Box.mount of the test's world."""
    return box.mount


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.failed:
        for box in getattr(item, "boxes", []):
            for mount in box.mounts:
                report.sections.append((f"stderr of {mount.dir} ({mount.command[0]})", mount.stderr()[-20000:]))
