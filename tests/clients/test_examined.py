"""What compares the examiners' calls with the lists finds a gap; the Hub does not know them apart."""

import json
import pathlib
import subprocess
import sys

HUB = pathlib.Path(__file__).resolve().parent.parent / "hub"
EXAMINED = pathlib.Path(__file__).resolve().parent / "examined.py"


def test_no_answer_depends_on_who_asks(hub, repo):
    """The server reads the User-Agent for the record only."""
    readers = [path.name for path in HUB.glob("*.py") if "user-agent" in path.read_text(encoding="utf-8").lower()]
    assert readers == ["recorder.py"]
    answers = [hub.request("GET", hub.api(repo), headers={"User-Agent": name}) for name in ("curl/8", "Mozilla/5", "")]
    assert [answer.body for answer in answers] == [answers[0].body] * 3


def test_gaps_are_found(tmp_path):
    record = {
        "agents": ["git/1.0"],
        "calls": {"git clone": 1, "HfApi.whoami": 1},
        "public": ["whoami", "move_repo", "run_job"],
        "requests": [
            ["hub", "GET", "/api/whoami-v2", "git/1.0", 200, 1],
            ["hub", "POST", "/api/repos/move", "x", 404, 1],
        ],
    }
    (tmp_path / "clients.json").write_text(json.dumps(record))
    done = subprocess.run(
        [sys.executable, EXAMINED, tmp_path / "clients.json"], text=True, stdout=subprocess.PIPE
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert {
        "clients: HfApi.move_repo was never called",
        "clients: git push was never called",
        "clients-hub1 left no record",
        "POST /api/repos/move: no examiner was answered there",
    } <= set(lines)
    assert not [
        line for line in lines if "run_job" in line or "HfApi.whoami was" in line or "git clone was" in line
    ]
    assert not [line for line in lines if line.startswith("GET /api/whoami-v2:")]
