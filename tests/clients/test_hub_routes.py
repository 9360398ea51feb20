"""The list of routes: each line of routes.txt is served."""

import pathlib
import re
import subprocess
import sys

HUB = pathlib.Path(__file__).resolve().parent.parent / "hub"
PRINT_ROUTES = "import hub, routes\nfor method, pattern, *_ in routes.ROUTES: print(method, pattern)"


def listed():
    lines = [
        line for line in (HUB / "routes.txt").read_text().splitlines() if line and not line.startswith("#")
    ]
    return [re.fullmatch(r"([A-Z]+ \S+)  # \S.*", line)[1] for line in lines]


def test_every_listed_route_is_served():
    served = subprocess.run(
        [sys.executable, "-c", PRINT_ROUTES], cwd=HUB, check=True, text=True, stdout=subprocess.PIPE
    ).stdout.splitlines()
    assert len(listed()) == len(set(listed())) > 20
    assert [line for line in listed() if line not in served] == []


def test_routes_of_others_are_not_served(hub, repo):
    for target in (
        "/api/agent-harnesses",
        f"{hub.api(repo)}/xet-read-token/main",
        f"{hub.api(repo)}/xet-write-token/None",
    ):
        answer = hub.request("GET", target)
        assert answer.status == 404 and isinstance(answer.json()["error"], str)
