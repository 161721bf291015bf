"""`report.html`: one self-contained page that shows a run of episodes at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from .charts import bars, histogram, lines
from .closed_loop import GRIPPER_DIM, Episode
from .html import card, data_uri, document, figure_cards, milliseconds, picture, short_number
from .summary import CONTROL_HZ, STEP_M

FILM_INLINE_BYTES = 3_000_000  # a larger film stays a file beside the page
# Metric -> (what it says, unit, goal as text, is it met). FAULTS.md, continuity at chunk boundaries.
BOUNDARY_ROWS = (
    ("cb1_ratio", "CB1", "P99 acceleration at chunk boundaries / elsewhere, worst axis", "", "<= 2", lambda v: v <= 2),
    ("cb1_ratio_median", "", "the same, median axis", "", "", None),
    ("cb2_violations", "CB2", "samples over one full action per tick", "", "0", lambda v: v == 0),
    ("cb3_step_over", "CB3", "largest step at a switch beyond the speed limit", "m", "<= 0", lambda v: v <= 1e-9),
    ("cb4_mean", "CB4", "disagreement of new and running chunk, mean", "m", "", None),
    ("cb4_max", "", "the same, largest", "m", "", None),
    ("cb5_jerk", "CB5", "largest jerk of the commanded path", "m/s³", "", None),
    ("cb6_index_law", "CB6", "switches at the row of the elapsed ticks", "", "1", lambda v: v == 1),
)


@dataclass(frozen=True)
class PageParts:
    """What another kind of run says besides.

    title: of the page. intro: words after the first sentence. figures: (name, value, words) beside the success rate.
    sections: (title, HTML) in a row of their own. note: below the command that repeats the run.
    """

    title: str = "A trained policy on the tabletop task"
    intro: str = ""
    figures: tuple[tuple[str, str, str], ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    note: str = (
        "The same seed gives the same episodes on the same machine; all figures of this page are in result.json."
    )


def write_report(
    path: Path, result: dict[str, object], episodes: Sequence[Episode], *, film: Path | None = None, command: str = "",
    more: PageParts = PageParts(),
) -> None:  # fmt: skip
    """Write the page. result: of `summary.summarise`. film: a GIF to show. command: the line that repeats the run."""
    path.write_text(page(result, episodes, film=film, command=command, more=more), encoding="utf-8")


def page(
    result: dict[str, object], episodes: Sequence[Episode], *, film: Path | None = None, command: str = "",
    more: PageParts = PageParts(),
) -> str:  # fmt: skip
    """The page's HTML: no script, no link to anything outside the file."""
    parts = [_head(result, more), _cards(result, more)]
    shown = card("The first episodes", _film(film)) if film is not None and film.exists() else ""
    rows = [(name, r["successes"], r["episodes"]) for name, r in result["by_prompt"].items()]
    by_prompt = card("Success by prompt", bars(rows, "success by prompt"))
    latency = card("Model latency", _latency(result, episodes))
    strip = card("Episodes", f'<div class="strip">{"".join(_episode(e) for e in episodes)}</div>')
    parts.append(f'<div class="grid"><div class="stack">{by_prompt}{latency}</div>{shown}</div>')
    parts.append(f'<div class="grid wide">{strip}</div><div class="grid">')
    moved = [e for e in episodes if len(e.commands)]
    if moved:  # the longest success shows the most; else whatever there is
        parts += _commands(max(moved, key=lambda e: (e.success, e.steps)))
    if more.sections:
        parts.append('</div><div class="grid">' + "".join(card(title, body) for title, body in more.sections))
    parts.append(f'</div><div class="grid">{card("Chunk boundaries", _boundary_table(result["boundary"]))}')
    parts.append(f"{card('Run it again', _again(command, more))}</div>")
    title = f"FlashRT demo: {result['successes']}/{result['episodes']}"
    return document(title, "".join(parts))


def _head(r: dict[str, object], more: PageParts) -> str:
    pace = "wall clock" if r["realtime"] else f"simulated time, {r['latency_ms']:g} ms added latency"
    emulated = " (emulated)" if r["precision"] == "fp8" else ""
    facts = [
        f"Pi0.5, {r['checkpoint']} checkpoint", f"{r['precision']}{emulated} on {r['hardware']}",
        f"splice {r['splice']}", f"new chunk every {r['replan_ticks']} ticks", pace, f"{r['renderer']} renderer",
        f"seeds {r['seed']}+", f"version {r['version']}",
    ]  # fmt: skip
    return (
        f"<h1>{escape(more.title)}</h1>"
        '<p class="soft">Two camera images, an 8-d state and a sentence go in; 7-d actions at 20 Hz come out, until '
        f'the task is done or 120 steps have passed. {escape(more.intro)}</p><p class="small soft">{escape(" · ".join(facts))}<br>'
        f"{escape(' · '.join(str(v) for v in r['machine'].values()))}</p>"
    )


def _cards(r: dict[str, object], more: PageParts) -> str:
    low, high = r["success_wilson95"]
    rate = r["success_rate"]
    ms, late = r["model_latency_ms"], r["tick_late_ms"]
    cards = [
        ("Success", "-" if rate is None else f"{100 * rate:.0f} %",
         f"{r['successes']} of {r['episodes']} episodes; 95 % interval {100 * low:.0f}-{100 * high:.0f} %"
         + (f"; {r['errors']} with errors left out" if r["errors"] else "")),
        ("Model latency P50", milliseconds(ms["p50"]),
         f"P95 {milliseconds(ms['p95'])}, P99 {milliseconds(ms['p99'])}, {r['threads']} thread"
         + ("s" if r["threads"] != 1 else "")),
        ("Tick misses", str(r["tick_misses"]), f"of {r['ticks']} control ticks without a planned action"),
        ("Boundary ratio (CB1)", short_number(r["boundary"]["cb1_ratio"]), "acceleration at chunk boundaries / elsewhere"),
    ]  # fmt: skip
    cards += more.figures
    if late["p50"] is not None and not more.figures:
        words = f"P95 {milliseconds(late['p95'])}, P99 {milliseconds(late['p99'])}"
        cards.append(("Tick lateness P50", milliseconds(late["p50"]), words))
    return figure_cards(cards)


def _film(film: Path) -> str:
    if film.stat().st_size > FILM_INLINE_BYTES:
        return f'<p class="small soft">See {escape(film.name)} beside this file.</p>'
    return f'<img class="film" alt="the first episodes" src="{data_uri("gif", film.read_bytes())}">'


def _episode(e: Episode) -> str:
    pics = "".join(picture(e.shots[k], f"{k} moment of seed {e.seed}") for k in ("first", "last") if k in e.shots)
    tag, kind = ("done", "ok") if e.success else ("error" if e.error else "not done", "no")
    note = f"<br>{escape(e.error)}" if e.error else ""
    shown = f'<div class="pics">{pics}</div>' if pics else ""
    words = f'<span class="tag {kind}">{tag}</span> <span class="soft">{e.steps} steps, seed {e.seed}{note}</span>'
    return f'<div class="ep">{shown}<div class="words">{escape(e.prompt)}<br>{words}</div></div>'


def _latency(r: dict[str, object], episodes: Sequence[Episode]) -> str:
    values = [x for e in episodes if e.error is None for x in e.model_ms]
    marks = {k.upper(): v for k, v in r["model_latency_ms"].items() if v is not None}
    return (
        histogram(values, marks, "ms per policy call", "model latency histogram")
        + f'<p class="small soft">{len(values)} calls, wall time, {r["threads"]} thread(s).</p>'
    )


def _boundary_table(values: dict[str, float | int | None]) -> str:
    rows = []
    for key, name, words, unit, goal, good in BOUNDARY_ROWS:
        v = values[key]
        kind = "" if good is None or v is None else "ok" if good(v) else "no"
        value = short_number(v) if v is None else f"{short_number(v)} {unit}"
        rows.append(
            f'<tr><td class="soft">{name}</td><td>{escape(words)}</td>'
            f'<td class="n {kind}">{value}</td><td class="n soft">{escape(goal)}</td></tr>'
        )
    head = f"<tr><th></th><th>{values['switches']} switches</th><th></th><th>goal</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _commands(e: Episode) -> list[str]:
    """Two charts of one episode: the commanded path with the gripper's moments, and the commands themselves."""
    path = np.cumsum(e.commands[:, :3] * STEP_M * 100, axis=0)
    close = np.flatnonzero(np.diff((e.commands[:, GRIPPER_DIM] > 0).astype(int)) != 0)
    word = f"Dotted lines: a new chunk takes over. Episode of seed {e.seed}: “{escape(e.prompt)}”."
    grips = ", ".join(f"{(k + 1) / CONTROL_HZ:.2f} s" for k in close)
    grip = f" The gripper changes at {grips}." if grips else ""
    titles = ("Commanded path of one episode", "Commands of the same episode")
    named = dict(zip("xyz", path.T, strict=True)), dict(zip("xyz", e.commands[:, :3].T, strict=True))
    charts = [
        lines(s, e.switch_ticks, 1 / CONTROL_HZ, unit, title)
        for s, unit, title in zip(named, ("cm", "action, 1 = 2 cm a tick"), titles, strict=True)
    ]
    notes = (word + grip, "What the runner sent each tick, after splicing.")
    return [card(t, c + f'<p class="small soft">{n}</p>') for t, c, n in zip(titles, charts, notes, strict=True)]


def _again(command: str, more: PageParts) -> str:
    line = f"<pre>{escape(command)}</pre>" if command else ""
    return f'{line}<p class="small soft" style="margin:8px 0 0">{escape(more.note)}</p>'
