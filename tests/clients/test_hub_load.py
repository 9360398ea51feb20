"""200 clients at once: no wrong answer, no lost commit. Shorter here; a minute of it is `python3 tests/hub/load.py`."""

import load
from client import Hub

CLIENTS, SECONDS = 200, 15


def test_two_hundred_clients_see_no_wrong_answer_and_lose_no_commit():
    with Hub() as hub:
        ledger, findings = load.run(hub, CLIENTS, SECONDS)
    print("\n".join(load.report(ledger, CLIENTS, SECONDS)))
    assert findings == []
    assert sum(map(len, ledger.commits.values())) >= CLIENTS and sum(map(len, ledger.proposals.values())) > 0
