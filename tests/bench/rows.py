"""The table of rows, and what a row comes to.

A row is a function of a World that returns an Outcome. Its ratio is better the larger it is, or, `at_most`, the
smaller; `goal` is None for a row that only informs. A row that counts instead of taking the time is `counted`:
it comes out the same on every machine, so tests/run insists on it.
"""

import collections

Row = collections.namedtuple("Row", "id what goal at_most counted links accounts measure")
ROWS = []


class Outcome:
    """`ratio`, the `runs` of each side ({name: [numbers]}), and a `note` for the table."""

    def __init__(self, ratio, runs, note=""):
        self.ratio = ratio
        self.runs = runs
        self.note = note


def row(id, what, goal=None, at_most=False, counted=False, links=("bare",), accounts=("root", "user")):
    """Register a row."""
    def register(measure):
        ROWS.append(Row(id, what, goal, at_most, counted, links, accounts, measure))
        return measure
    return register


def met(row, ratio):
    """Whether a row's goal is met; None where there is none."""
    if row.goal is None:
        return None
    return ratio <= row.goal if row.at_most else ratio >= row.goal


def faster(runs, than, name="hugfs"):
    """How many times faster (more per second) one side is than another: best run against best run of seconds."""
    return min(runs[than]) / min(runs[name])


def rates(runs, size):
    """`hugfs 1.20 GB/s, ext4 1.31 GB/s`: the best run of each side."""
    return ", ".join(f"{name} {size / min(spent) / 1e9:.2f} GB/s" for name, spent in runs.items())


def times(runs, unit=1000, name="ms"):
    return ", ".join(f"{side} {min(spent) * unit:.2f} {name}" for side, spent in runs.items())
