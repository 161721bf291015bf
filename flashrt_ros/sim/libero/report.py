"""`report.html` of an evaluation: one self-contained page with success by task, latency against splice, and failures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ...evaluation.charts import bars
from ...evaluation.html import card, data_uri, document, figure_cards, short_number

FILMS_BYTES = 6_000_000  # of a folder's films inside the page; the others lie beside it
Result = dict[str, object]
Cell = dict[str, object]


def write_page(out: Path, result: Result, command: str = "") -> Path:
    """Write report.html from what `results.summarise` made. command: the line that repeats the run."""
    path = out / "report.html"
    path.write_text(page(out, result, command), encoding="utf-8")
    return path


def page(out: Path, result: Result, command: str = "") -> str:
    """The page's HTML: no script, no link to anything outside the file but films that are too large for it."""
    cells = result["conditions"]
    parts = [_head(result), _cards(result)]
    if len(cells) > 1:
        title = "Success and mean seconds of a success, by splice strategy and added latency"
        parts.append(f'<div class="grid wide">{card(title, _grid(cells))}</div>')
    of = f" ({_condition(cells[0])})" if len(cells) > 1 else ""
    tasks = card("Success by task" + of, _bars(cells[0])) + card("Tasks" + of, _tasks(cells[0]))
    parts.append(f'<div class="grid">{tasks}</div>')
    parts.append(f'<div class="grid wide">{card("Chunk boundaries", _boundaries(cells))}</div>')
    for folder, title in (("failures", "Failures"), ("films", "The first trial of each task")):
        if films := _films(out, folder):
            title = f"{title}: the agent view each time the policy was asked"
            parts.append(f'<div class="grid wide">{card(title, films)}</div>')
    note = "A second run with the same --out goes on where this one stopped."
    again = f'<pre>{escape(command)}</pre><p class="small soft">{note}</p>'
    parts.append(f'<div class="grid wide">{card("Run it again", again)}</div>')
    title = f"{result['suite']}: {rate(cells[0])}"
    return document(title, "".join(parts), "th.n{text-align:right}")


def rate(cell: Cell) -> str:
    """Success of a condition in words."""
    if cell["success_rate"] is None:
        return f"- (0/0{_errors(cell)})"
    return f"{100 * cell['success_rate']:.1f} % ({cell['successes']}/{cell['episodes']}{_errors(cell)})"


def interval(cell: Cell) -> str:
    """Its Wilson interval."""
    low, high = cell["success_wilson95"]
    return f"{100 * low:.1f}-{100 * high:.1f} %"


def _errors(cell: Cell) -> str:
    return f", {cell['errors']} errors apart" if cell["errors"] else ""


def _condition(cell: Cell) -> str:
    return f"{cell['splice']}, {cell['latency_ms']:g} ms"


def _head(r: Result) -> str:
    policy = r["checkpoint"] or r["policy"]
    facts = [
        f"policy {policy}", f"protocol {r['protocol']['name']}", f"seed {r['seed']}", f"new chunk every {r['replan_ticks']} steps",
        f"{r['episodes_per_task']} episodes a task", "wall clock" if r["realtime"] else "simulated time", f"{r['gl']} renderer",
        *(f"{k} {v}" for k, v in r["versions"].items() if v), f"flashrt {r['flashrt']}",
    ]  # fmt: skip
    machine = " · ".join(f"Python {v}" if k == "python" else str(v) for k, v in r["machine"].items())
    return (
        f'<h1>{escape(r["suite"])}</h1><p class="soft">Two camera pictures, an 8-d state and a sentence go to the policy; 7-d '
        "actions at 20 Hz come back. An error of the simulator is neither a success nor a failure.</p>"
        f'<p class="small soft">{escape(" · ".join(facts))}<br>{escape(machine)}</p>'
    )


def _cards(r: Result) -> str:
    first, cost = r["conditions"][0], r["cost"]
    share = {k: "-" if v is None else f"{100 * v:.1f} %" for k, v in cost["share"].items()}
    ms = first["model_latency_ms"]["p50"]
    cards = [
        ("Success", rate(first).split(" (")[0], f"{first['successes']} of {first['episodes']}; 95 % interval {interval(first)}"),
        ("Errors", str(sum(c["errors"] for c in r["conditions"])), "episodes that the simulator did not finish, counted apart"),
        ("Control steps a second", short_number(cost["steps_per_s"]),
         f"one simulator, resets and drawing included; physics alone {short_number(cost['physics_steps_per_s'])}"),
        ("Time in the policy", share["policy"], f"resets {share['reset']}, drawing {share['render']}, physics {share['physics']}"),
        ("Policy latency P50", "-" if ms is None else f"{ms:.1f} ms", f"P99 {short_number(first['model_latency_ms']['p99'])} ms"),
    ]  # fmt: skip
    return figure_cards(cards)


def _grid(cells: Sequence[Cell]) -> str:
    """Rows: strategies, columns: latencies."""
    latencies = sorted({c["latency_ms"] for c in cells})
    at = {(c["splice"], c["latency_ms"]): c for c in cells}
    head = "".join(f'<th class="n">{ms:g} ms</th>' for ms in latencies)
    rows = []
    for splice in dict.fromkeys(c["splice"] for c in cells):
        row = [f"<td>{escape(splice)}</td>"]
        for ms in latencies:
            cell = at.get((splice, ms))
            text = "-" if cell is None else f"{escape(rate(cell))}<br>{short_number(cell['mean_task_s_of_successes'])} s"
            row.append(f'<td class="n">{text}</td>')
        rows.append(f"<tr>{''.join(row)}</tr>")
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _bars(cell: Cell) -> str:
    rows = [(f"{t['task']} {t['name'].replace('_', ' ')}", t["successes"], t["episodes"]) for t in cell["tasks"]]
    return bars(rows, "success by task")


def _tasks(cell: Cell) -> str:
    lines = "".join(
        f"<tr><td>{t['task']}</td><td>{escape(t['name'].replace('_', ' '))}</td><td class=\"n\">{escape(rate(t))}</td>"
        f'<td class="n soft">{interval(t)}</td></tr>' for t in cell["tasks"]
    )  # fmt: skip
    head = '<tr><th></th><th>task</th><th class="n">success</th><th class="n">95 %</th></tr>'
    return f'<div class="scroll"><table>{head}{lines}</table></div>'


COLUMNS = (
    ("cb1_ratio", "CB1"), ("cb2_violations", "CB2"), ("cb3_step_over", "CB3, m"), ("cb4_mean", "CB4 mean, m"),
    ("cb4_max", "CB4 max, m"), ("cb5_ratio", "CB5 / sync"), ("cb6_index_law", "CB6"),
)  # fmt: skip


def _boundaries(cells: Sequence[Cell]) -> str:
    head = "".join(f'<th class="n">{name}</th>' for _, name in COLUMNS)
    rows = "".join(
        f"<tr><td>{escape(_condition(c))}</td><td class=\"n\">{c['boundary']['switches']}</td>"
        + "".join(f'<td class="n">{short_number(c["boundary"][key])}</td>' for key, _ in COLUMNS)
        + f'<td class="n">{c["tick_misses"]} of {c["ticks"]}</td></tr>'
        for c in cells
    )
    words = (
        "Of the commanded path of the hand. CB1: P99 acceleration at switches over elsewhere. CB2: samples over a full action "
        "per step. CB3: largest step at a switch beyond that. CB4: disagreement of new and running chunk. CB5: largest jerk "
        "over the synchronous loop's. CB6: switches at the row of the elapsed steps."
    )
    return (
        f'<div class="scroll"><table><tr><th></th><th class="n">switches</th>{head}<th class="n">steps without a row</th></tr>'
        f'{rows}</table></div><p class="small soft">{words}</p>'
    )


def _films(out: Path, folder: str) -> str:
    """The films of a folder inside the page while they fit, else by name."""
    shown, named, size = [], [], 0
    for film in sorted((out / folder).glob("*.gif")):
        size += film.stat().st_size
        if size > FILMS_BYTES:
            named.append(film.name)
            continue
        shown.append(
            f'<div class="ep"><img alt="{escape(film.stem)}" src="{data_uri("gif", film.read_bytes())}">'
            f'<div class="words">{escape(film.stem.replace("_", " "))}</div></div>'
        )
    more = f'<p class="small soft">Beside this page in {folder}/: {escape(", ".join(named))}</p>' if named else ""
    return (f'<div class="strip">{"".join(shown)}</div>' if shown else "") + more
