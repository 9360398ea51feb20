"""The test Hub over https: the official command, git, and what a client sees that does not trust its authority."""

import os
import pathlib
import subprocess
import sys

import pytest
from client import Hub

MIB = 1 << 20


@pytest.fixture(scope="module")
def secure():
    with Hub(tls=True, multipart_threshold=6_000_000, chunk_size=1_000_000) as hub:
        yield hub


@pytest.fixture
def trust(secure, monkeypatch):
    """Everything that is started trusts the authority."""
    for name in ("SSL_CERT_FILE", "GIT_SSL_CAINFO"):
        monkeypatch.setenv(name, secure.ca)


def test_the_official_command_uploads_and_downloads(secure, trust, hf, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    files = {"config.json": b"{}\n", "small.bin": os.urandom(MIB), "parts.bin": os.urandom(7 * MIB)}
    for name, data in files.items():
        (source / name).write_bytes(data)
    env = {"HF_ENDPOINT": secure.endpoint, "HF_HOME": str(tmp_path / "home")}
    hf("upload", "user/secure", source, env=env)
    assert {name: secure.content("user/secure", name) for name in files} == files
    hf("download", "user/secure", "--local-dir", target, env=env)
    assert {name: (target / name).read_bytes() for name in files} == files
    assert {record["origin"] for record in secure.requests(method="GET")} == {"hub", "data"}


def test_a_client_that_does_not_trust_the_authority_gets_nothing(secure, tmp_path):
    secure.create_repo("user/distrusted")
    since = secure.last_seq()
    command = os.path.join(os.path.dirname(sys.executable), "hf")
    env = {**os.environ, "HF_ENDPOINT": secure.endpoint, "HF_HOME": str(tmp_path)}
    done = subprocess.run([command, "download", "user/distrusted"], env=env, text=True, capture_output=True)
    assert done.returncode != 0 and "CERTIFICATE_VERIFY_FAILED" in done.stderr, done.stderr
    assert secure.requests(since) == []


def test_git_pushes_and_clones_with_lfs(secure, trust, git, tmp_path):
    secure.create_repo("user/pushed")
    url = secure.endpoint.replace("://", f"://user:{secure.tokens['user']}@") + "/user/pushed"
    git("clone", url, "work")
    work = pathlib.Path(tmp_path / "work")
    files = {"big.bin": os.urandom(2 * MIB), "text.txt": os.urandom(600_000).hex().encode()}
    for name, data in files.items():
        (work / name).write_bytes(data)
    git("add", ".", cwd=work)
    git("commit", "-m", "Add two files", cwd=work)
    git("push", cwd=work)
    assert {name: secure.content("user/pushed", name) for name in files} == files
    git("clone", url, "again")
    assert {name: (tmp_path / "again" / name).read_bytes() for name in files} == files


def test_faults_and_records_are_the_same_over_https(secure):
    secure.create_repo("user/faulty")
    secure.lfs_sparse("user/faulty", "w.bin", 3 * MIB, {MIB: b"here"})
    url = secure.request("GET", "/user/faulty/resolve/main/w.bin").headers["location"]
    assert url.startswith(secure.data + "/") and secure.data.startswith("https://localhost:")
    since = secure.last_seq()
    assert secure.request("GET", url, headers={"Range": f"bytes={MIB}-{MIB + 3}"}, token=None).body == b"here"
    secure.fault("/lfs/", cut_after=MIB + 5)
    curl = subprocess.run(["curl", "-sS", "--cacert", secure.ca, "-o", os.devnull, "-w", "%{size_download}", url],
                          text=True, capture_output=True)
    assert (curl.returncode, curl.stdout) == (18, str(MIB + 5))
    assert [(record["origin"], record["status"], record["sent"]) for record in secure.requests(since)] == [
        ("data", 206, 4), ("data", 200, MIB + 5)]
