"""One test Hub for the whole session, and the examiners pointed at it: official programs, unmodified.

huggingface_hub freezes its constants when it is imported, so the Hub is started and the environment set
here, before any test module imports the client. Each session runs in the environment of one release of
it (tests/run); the session ends with the versions seen on the wire and with what was called, and `--record`
keeps that for tests/clients/examined.py.
"""

import collections
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hub"))

from client import Hub  # noqa: E402
from examiner import CALLS, FILES, PUBLIC, VERSIONS, Counted, public_functions  # noqa: E402

HOME = tempfile.mkdtemp(prefix="test-clients-")
HUB = Hub(multipart_threshold=6_000_000, chunk_size=1_000_000)
os.environ.update(
    HF_HOME=os.path.join(HOME, "hf"),
    HF_ENDPOINT=HUB.endpoint,
    HF_TOKEN=HUB.tokens["user"],
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    NO_PROXY="127.0.0.1,localhost",
    GIT_CONFIG_NOSYSTEM="1",
    GIT_TERMINAL_PROMPT="0",
)
NUMBERS = itertools.count(1)
EXAMINER = re.compile(r"\b((?:hf_hub|transformers|datasets|git|git-lfs)/[\d.]+)|^node$")  # in a User-Agent


def pytest_addoption(parser):
    parser.addoption("--record", metavar="FILE", help="keep the calls and the requests of this session there")


def pytest_unconfigure():
    HUB.stop()
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_terminal_summary(terminalreporter, config):
    """The versions of the examiners, the list of their calls, and for `--record` their requests."""
    requests = collections.Counter()
    for item in HUB.requests():
        if EXAMINER.search(item["agent"] or ""):
            requests[item["origin"], item["method"], item["path"], item["agent"], item["status"]] += 1
    agents = sorted({name for key in requests for name in examiner_names(key[3])} | VERSIONS)
    terminalreporter.section("examiners: " + (", ".join(agents) or "none"))
    for name, count in sorted(CALLS.items()):
        terminalreporter.line(f"{count:5} {name}")
    if config.getoption("record"):
        record = {"agents": agents, "calls": CALLS, "public": PUBLIC,
                  "requests": [[*key, count] for key, count in requests.items()]}
        pathlib.Path(config.getoption("record")).write_text(json.dumps(record), encoding="utf-8")


def examiner_names(agent):
    """The name/version items of a User-Agent that are examiners'; node sends only its name."""
    return [name.replace("hf_hub", "huggingface_hub") for name in EXAMINER.findall(agent) if name]


@pytest.fixture(scope="session", autouse=True)
def no_token_ever_leaks():
    """At the end: no request to the data origin carried a token, except those that tried on purpose."""
    yield
    leaks = [item for item in HUB.requests(origin="data") if item["token"] or item["cookie"]]
    assert [item for item in leaks if "leak-on-purpose" not in item["query"]] == []


@pytest.fixture
def hub():
    """The Hub, with no fault and no changed setting left by another test."""
    defaults = HUB.config()
    yield HUB
    HUB.clear_faults()
    HUB.config(**defaults)


@pytest.fixture
def repo(hub):
    """The id of a new, public model repository of `user`."""
    repo_id = f"user/model-{next(NUMBERS)}"
    hub.create_repo(repo_id)
    return repo_id


@pytest.fixture
def filled(hub, repo):
    """A repository with FILES and two LFS files; (id, {path: content})."""
    files = {**FILES, "model.safetensors": os.urandom(300_000), "nested/w.bin": os.urandom(10)}
    hub.commit(repo, files)
    return repo, files


@pytest.fixture
def new_id():
    """An id of `user` that does not exist."""
    return f"user/new-{next(NUMBERS)}"


@pytest.fixture
def connect(hub):
    """Make the official client's API object: for an account, a token, False (nobody), None (HF_TOKEN)."""
    from huggingface_hub import HfApi
    PUBLIC[:] = public_functions(HfApi)
    return lambda account: Counted(HfApi(token=hub.tokens.get(account, account)), "HfApi")


@pytest.fixture
def api(connect):
    """The official client's API object for `user`."""
    return connect(None)


@pytest.fixture
def hf():
    """Run the `hf` command; its standard output as text."""
    program = str(pathlib.Path(sys.executable).with_name("hf"))

    def run(*arguments, words=1, env=None):
        arguments = [str(item) for item in arguments]
        CALLS["hf " + " ".join(arguments[:words])] += 1
        done = subprocess.run([program, *arguments], env={**os.environ, **(env or {})}, text=True,
                              capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    return run


@pytest.fixture
def git(tmp_path):
    """Run git with a home of its own in which git-lfs is installed; its standard output as text."""
    home = tmp_path / "git-home"
    home.mkdir()
    env = {**os.environ, "HOME": str(home)}

    def run(*arguments, cwd=tmp_path, check=True):
        words = [str(item) for item in arguments]
        CALLS["git " + " ".join(words[: 2 if words[0] == "lfs" else 1])] += 1
        done = subprocess.run(["git", *words], cwd=cwd, env=env, text=True, capture_output=True, timeout=300)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done

    run("lfs", "install", "--skip-repo")
    run("config", "--global", "user.name", "tester")
    run("config", "--global", "user.email", "tester@example.org")
    run("config", "--global", "safe.directory", "*")
    return run
