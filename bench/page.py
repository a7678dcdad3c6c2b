"""Turn bench/results.json into docs/performance.md, with a plot of each question."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from bench.measurement import shown
from bench.peers.keeps import PEERS, Peer

DOCS = Path(__file__).parent.parent / "docs"

HEAD = """# Performance

Each row compares our figure with another that was measured in the same run on the same server, in turns:
medians of three turns, with the least and the greatest (idle, memory and pickup have one turn). Default
PostgreSQL settings, durable commits. `bench/` has a module for each question, which says what the load is
and what it is compared with; the floors in `bench/floors/` are plain SQL on a bare table, run by pgbench
(for cost in a session of our own). [profile.md](profile.md) says where the time goes.
Made by `make bench{full}` with PostgreSQL {postgresql}, Python {python} and psycopg {psycopg} on {processors}
processors.
"""

KEEPS = """Ours keeps every order, and each attempt that did not complete it; while it is worked
on, it shows its worker.

| peer | as measured | while a job is worked on | a job that is done |
| --- | --- | --- | --- |"""

ROW = "| {case} | {ours} {unit} | {others} {against} | {ratio:.2f} | {wanted} | {verdict} |"


def write(document: dict[str, Any]) -> None:
    """Write the page and its plots."""
    full = all(each["full"] for each in document["measurements"])
    page = [
        HEAD.format(full=" FULL=1" if full else "", processors=document["processors"], **document["versions"])
    ]
    for question, measured in _by_question(document["measurements"]).items():
        plot = f"performance-{question}.svg"
        _plot(measured, DOCS / plot)
        page += [f"## {question}", "", f"![{question}]({plot})", ""]
        page += ["| case | ours | against | ratio | wanted | |", "| --- | --- | --- | --- | --- | --- |"]
        page += [_row(each) for each in measured]
        page += [""]
        if question == "peers":
            page += [KEEPS, *(_peer(each) for each in PEERS), ""]
    (DOCS / "performance.md").write_text("\n".join(page))


def _peer(peer: Peer) -> str:
    return f"| {peer.name} | {peer.setting} | {peer.working} | {peer.done} |"


def _by_question(measured: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    questions: dict[str, list[dict[str, Any]]] = {}
    for each in measured:
        questions.setdefault(each["question"], []).append(each)
    return questions


def _row(measured: dict[str, Any]) -> str:
    return ROW.format(
        **measured | {"ours": _spread(measured["ours"]), "others": _spread(measured["others"])},
        verdict="met" if measured["met"] else "**missed**",
    )


def _spread(values: list[float]) -> str:
    middle = shown(statistics.median(values))
    return (
        middle if min(values) == max(values) else f"{middle} ({shown(min(values))} to {shown(max(values))})"
    )


def _plot(measured: list[dict[str, Any]], path: Path) -> None:
    """Draw each ratio as a bar, from its worst turn to its best as a line, with the bound as a mark."""
    figure = Figure(figsize=(8, 0.6 + 0.5 * len(measured)), layout="constrained")
    axes = figure.subplots()
    places = range(len(measured))
    ratios = [each["ratio"] for each in measured]
    turns = [
        [ours / other for ours, other in zip(each["ours"], each["others"], strict=True)] for each in measured
    ]
    colours = ["tab:blue" if each["met"] else "tab:red" for each in measured]
    axes.barh(places, ratios, color=colours, height=0.5)
    for place, spread, each in zip(places, turns, measured, strict=True):
        axes.plot([min(spread), max(spread)], [place, place], color="black", linewidth=1.5)
        axes.plot([each["bound"]] * 2, [place - 0.35, place + 0.35], color="black", linestyle=":")
    axes.set_yticks(places, [f"{each['case']}\n/ {each['against']}" for each in measured], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio of medians; line: the turns; dotted: what is wanted")
    axes.set_xlim(left=0)
    # Without a salt and a date the same figures give the same file.
    with rc_context({"svg.hashsalt": "orders"}):
        figure.savefig(path, metadata={"Date": None})
