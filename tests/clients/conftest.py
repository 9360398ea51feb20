"""One test Hub for the whole session, and the official client pointed at it.

huggingface_hub freezes its constants when it is imported, so the Hub is started and the environment set
here, before any test module imports the client.
"""

import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "hub"))

from client import Hub  # noqa: E402

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
    GIT_CONFIG_NOSYSTEM="1",
    GIT_TERMINAL_PROMPT="0",
)
NUMBERS = itertools.count(1)


def pytest_unconfigure():
    HUB.stop()
    shutil.rmtree(HOME, ignore_errors=True)


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
def new_id():
    """An id of `user` that does not exist."""
    return f"user/new-{next(NUMBERS)}"


@pytest.fixture
def api(hub):
    from huggingface_hub import HfApi
    return HfApi()


@pytest.fixture
def git(tmp_path):
    """Run git with a home of its own in which git-lfs is installed; its standard output as text."""
    home = tmp_path / "git-home"
    home.mkdir()
    env = {**os.environ, "HOME": str(home)}

    def run(*arguments, cwd=tmp_path, check=True):
        done = subprocess.run(["git", *map(str, arguments)], cwd=cwd, env=env, text=True, capture_output=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done

    run("lfs", "install", "--skip-repo")
    run("config", "--global", "user.name", "tester")
    run("config", "--global", "user.email", "tester@example.org")
    run("config", "--global", "safe.directory", "*")
    return run
