"""What a run of the benches leaves behind: a table for README.md, and plots."""

import os

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hugfs", "font.size": 8, "axes.spines.top": False,
                            "axes.spines.right": False})

import matplotlib.pyplot as plt  # noqa: E402  (the settings come first)

COLOURS = {"hugfs": "#2a6fb0", "met": "#3a923a", "missed": "#c0503a", "other": "#9a9a9a"}
BEST = 20  # where the bars end
RATES = {  # row: (title, bytes read in a run are those of the large file)
    "cold-seq": "cold, loopback", "cold-clients": "cold, loopback", "warm-seq": "warm, page cache dropped",
    "reread": "page cache", "cold-shaped": "cold, 40 ms and 12.5 MB/s a connection", "cp-in": "cp into the mount",
}


def by_row(results):
    """{row id: {account: result}} in the order of the run."""
    found = {}
    for result in results:
        row, _, account = result["id"].split("/")
        found.setdefault(row, {})[account] = result
    return found


def goal_text(result):
    return "" if result["goal"] is None else f"{'≤' if result['at_most'] else '≥'} {result['goal']:g}"


def cell(result):
    """One account's ratio; in bold where the goal is missed."""
    if result is None:
        return ""
    if result["ratio"] is None:
        return "failed"
    text = f"{result['ratio']:.2f}"
    return f"**{text}**" if result["met"] is False else text


def markdown(results):
    """The table as Markdown: what, goal, root, ordinary user; bold is missed."""
    lines = ["| row | what | goal | root | user |", "|---|---|---|---|---|"]
    for row, accounts in by_row(results).items():
        any_result = next(iter(accounts.values()))
        lines.append(f"| `{row}` | {any_result['what']} | {goal_text(any_result)} | {cell(accounts.get('root'))} | "
                     f"{cell(accounts.get('user'))} |")
    return "\n".join(lines) + "\n"


def draw(results, size, folder):
    """All plots that these results allow, as SVG files in a folder."""
    os.makedirs(folder, exist_ok=True)
    with_goals = [result for result in results if result["goal"] and result["ratio"] is not None]
    draw_goals(with_goals, os.path.join(folder, "goals.svg"))
    draw_rates(by_row(results), size, os.path.join(folder, "rates.svg"))
    draw_random(by_row(results), os.path.join(folder, "random.svg"))


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_goals(results, path):
    """How far each row is from its goal: 1 is the goal, right of it is better."""
    if not results:
        return
    figure, axes = plt.subplots(figsize=(6.5, 0.4 + 0.16 * len(results)), layout="constrained")
    for place, result in enumerate(reversed(results)):
        score = result["ratio"] / result["goal"]
        if result["at_most"]:
            score = 1 / score if score else BEST
        axes.barh(place, min(max(score, 0.05), BEST) - 1, left=1, height=0.7,
                  color=COLOURS["met" if result["met"] else "missed"])
    axes.set_yticks(range(len(results)), [label(result) for result in reversed(results)])
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.25, 0.5, 1, 2, 4, 10], ["0.1", "0.25", "0.5", "goal", "2x", "4x", "10x"])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(y=0.01)
    save(figure, path)


def label(result):
    row, _, account = result["id"].split("/")
    return f"{row} ({account})"


def draw_rates(rows, size, path):
    """Bytes a second of hugfs and of what it is compared with, one panel for each way of reading."""
    panels = {}
    for row, title in RATES.items():
        accounts = rows.get(row, {})
        result = accounts.get("root") or accounts.get("user")
        if not result or not result["runs"]:
            continue
        for name, spent in result["runs"].items():
            rate = size / min(spent) / 1e9
            panels.setdefault(title, {})[name] = max(rate, panels.get(title, {}).get(name, 0))
    if not panels:
        return
    heights = [2 + len(sides) for sides in panels.values()]
    figure, all_axes = plt.subplots(len(panels), 1, figsize=(6.5, 0.22 * sum(heights)), layout="constrained",
                                    squeeze=False, height_ratios=heights)
    for axes, (title, sides) in zip(all_axes[:, 0], panels.items()):
        names = list(reversed(sides))
        axes.barh(names, [sides[name] for name in names],
                  color=[COLOURS["hugfs" if name == "hugfs" else "other"] for name in names])
        axes.set_title(f"{title}, GB/s", loc="left", fontsize=8)
    save(figure, path)


def draw_random(rows, path):
    """Random 4 KiB reads a second against the number of readers, for each account beside ext4."""
    figure, axes = plt.subplots(figsize=(6.5, 2.2), layout="constrained")
    for account, style in (("root", "-"), ("user", "--")):
        points = [(readers, rows[f"random-warm-{readers}"][account]["runs"])
                  for readers in (1, 4, 8, 32) if account in rows.get(f"random-warm-{readers}", {})]
        for name in ("hugfs", "ext4", "floor"):
            places = [(readers, 1 / min(runs[name]) / 1000) for readers, runs in points
                      if runs.get(name)]
            if places:
                axes.plot(*zip(*places), style, marker="o", markersize=3, label=f"{name} ({account})",
                          color=COLOURS["hugfs" if name == "hugfs" else "other"])
    if axes.lines:
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 4, 8, 32], ["1", "4", "8", "32"])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("readers")
        axes.set_title("random 4 KiB reads, second pass, thousands a second", loc="left", fontsize=8)
        axes.legend(frameon=False)
        save(figure, path)
    plt.close(figure)
