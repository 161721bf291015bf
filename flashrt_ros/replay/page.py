"""`report.html` of a replay: one self-contained page that shows how far the policy is from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ..config.settings import RobotConfig
from ..evaluation.charts import histogram, lines
from ..evaluation.html import card, document, figure_cards, milliseconds, short_number
from .compare import Difference, Verdict, change
from .first_frames import FRAME_STYLE, frames_html
from .outcome import BagOutcome

MAX_CURVES = 12
STYLE = FRAME_STYLE + (
    ".key b{font-weight:600} .key .k0{color:var(--s0)} .key .k1{color:var(--s1)}"
    ".curves{display:grid;gap:10px;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}"
    ".curves h3{font-size:13px;margin:0;font-weight:600} .warn{border-color:var(--bad)}"
    ".card b.big{font-size:25px;white-space:nowrap} th.n{text-align:right}"
    ".cards{grid-template-columns:repeat(auto-fit,minmax(165px,1fr))}"
)
# Key of the boundary figures -> (name, words, goal).
BOUNDARY_ROWS = (
    ("cb1_ratio", "CB1", "P99 acceleration at switches / elsewhere, worst joint", "<= 2"),
    ("cb1_ratio_median", "", "the same, median joint", ""),
    ("cb2_violations", "CB2", "samples over v_max or a_max, before the guard", "0"),
    ("cb3_step_over", "CB3", "largest step at a switch beyond the speed limit", "<= 0"),
    ("cb4_mean", "CB4", "disagreement of new and running chunk, mean", ""),
    ("cb4_max", "", "the same, largest", ""),
    ("cb5_ratio", "CB5", "largest jerk / the same with calls that take no time", "<= 1.3"),
    ("cb6_index_law", "CB6", "switches at the row of the elapsed ticks", "1"),
)


def page(
    result: Mapping, timing: Mapping, total: BagOutcome, robot: RobotConfig, command: str, compared: str = ""
) -> str:
    """The page's HTML. compared: more cards, of `comparison_html`."""
    bags = result["bags"]
    title = bags[0]["bag"] if len(bags) == 1 else f"{len(bags)} bags"
    parts = [_head(result, timing, title), _cards(result, timing), _warnings(result), compared]
    parts.append(_wide("Predicted and recorded", _curves(total, robot)))
    if total.first_frames:
        parts.append(_wide("The first requests", frames_html(total.first_frames, robot)))
    parts.append(_wide("Action error by joint", _joint_table(result)))
    parts.append(_pair(card("Error over the chunk", _horizon(result)), card("Model latency", _latency(total, timing))))
    parts.append(_wide("Chunk boundaries by splice strategy", _boundary_table(result)))
    parts.append(_pair(card("Limits", _limits(result)), card("Counted", _skips(result))))
    if len(bags) > 1:
        parts.append(_wide("Bags", _bag_table(bags)))
    again = f"<pre>{escape(command)}</pre>" if command else ""
    words = "The same bags, policy and seed give the same result.json; times are in timing.json."
    parts.append(_wide("Run it again", f'{again}<p class="small soft" style="margin:8px 0 0">{words}</p>'))
    return document(f"FlashRT replay: {title}", "".join(parts), STYLE)


def _wide(title: str, body: str) -> str:
    return f'<div class="grid wide">{card(title, body)}</div>'


def _pair(left: str, right: str) -> str:
    return f'<div class="grid">{left}{right}</div>'


def _head(r: Mapping, timing: Mapping, title: str) -> str:
    p = r["policy"]
    facts = [
        f"{p['model']}, {p['checkpoint']} checkpoint", f"precision {p['precision']} on {timing['hardware']}",
        f"robot {r['robot']} at {r['control_hz']:g} Hz",
        f"splice {r['splice']}", f"latency {_latency_words(r['latency_ms'])}", f"seed {p['seed']}", f"version {r['version']}",
    ]  # fmt: skip
    return (
        f"<h1>Replay of {escape(title)}</h1>"
        '<p class="soft">The policy was run over what the robot recorded: at every control tick it got the images, the state and '
        "the prompt that the node would have had, and nothing it said reached a robot.</p>"
        f'<p class="small soft">{escape(" · ".join(facts))}<br>{escape(" · ".join(timing["machine"].values()))} · '
        f"{escape(timing['date'])}</p>"
    )


def _latency_words(text: str) -> str:
    return "measured" if text == "measured" else f"{text} ms"


def _cards(r: Mapping, timing: Mapping) -> str:
    error, ms, delay = r["action_error"]["all"], timing["model_latency_ms"], r["observation_to_action_ms"]
    splice = r["boundary"].get(r["splice"], {})
    skipped = sum(r["not_asked"]["skipped_ticks"].values()) + sum(r["not_asked"]["ticks_not_ready"].values())
    return figure_cards([
        ("Error of served commands", _percent(error["served"]["mae"]),
         f"mean, normalised; P99 {_percent(error['served']['p99'])}; {error['served']['count']} commands compared"),
        ("Error of whole chunks", _percent(error["chunk"]["mae"]),
         f"first step {_percent(error['first']['mae'])}; P99 {_percent(error['chunk']['p99'])}"),
        ("Requests", str(r["requests"]), f"in {r['ticks']} ticks, {r['episodes']} episode(s), {r['duration_s']:.1f} s; "
         f"{skipped} ticks could not ask"),
        ("Model latency P50", milliseconds(ms["p50"]),
         f"P95 {milliseconds(ms['p95'])}, P99 {milliseconds(ms['p99'])}, measured here"),
        ("Observation to action P50", milliseconds(delay["p50"]),
         f"P95 {milliseconds(delay['p95'])}, P99 {milliseconds(delay['p99'])}, in the bag's time"),
        ("Boundary ratio (CB1)", short_number(splice.get("cb1_ratio")), f"splice {r['splice']}; goal <= 2"),
    ])  # fmt: skip


def _percent(v: float | None) -> str:
    return "-" if v is None else f"{100 * v:.3g} %"


def _warnings(r: Mapping) -> str:
    rows = []
    for bag in r["bags"]:
        found = [f"{f['fault']} {f['text']}" + (f" ({f['count']} messages)" if f["count"] else "") for f in bag["findings"]]
        if not bag["verified"]:
            found.append("unverified: not every message is protected by a checksum")
        rows += [f'<li><b>{escape(bag["bag"])}</b>: {escape(text)}</li>' for text in dict.fromkeys(found)]
    if not rows:
        return ""
    return f'<div class="grid wide"><section class="card warn"><h2>The recording</h2><ul>{"".join(rows)}</ul></section></div>'


def _curves(total: BagOutcome, robot: RobotConfig) -> str:
    """One small chart a joint; those that move most when there are too many."""
    excerpt = total.excerpt
    if not excerpt.recorded:
        return "<p>no episode</p>"
    recorded, served = np.stack(excerpt.recorded), np.stack(excerpt.served)
    moved, moves = _swing(recorded), _swing(served)
    used = np.flatnonzero((moved > 0) | (moves > 0))
    chosen = sorted(used[np.argsort(-moved[used], kind="stable")][:MAX_CURVES])
    parts = []
    for i in chosen:
        series = {"": recorded[:, i], " ": served[:, i]}
        chart = lines(series, excerpt.switches, 1 / robot.control_hz, "", f"{robot.action_names[i]}, recorded and served")
        parts.append(f"<div><h3>{escape(robot.action_names[i])}</h3>{chart}</div>")
    still = len(robot.actions) - len(chosen)
    left = f" {still} joint(s) that did not move or moved least are left out." if still else ""
    return (
        '<p class="small key"><b class="k0">recorded</b> and <b class="k1">served</b> after splicing and guard, first '
        f"{len(recorded)} ticks of the first episode, in the command's units; dotted lines: a new chunk takes over; "
        f"gaps: no command.{left}</p>"
        f'<div class="curves">{"".join(parts)}</div>'
    )


def _swing(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest of each column, 0 where nothing is known."""
    known = np.isfinite(values)
    top, low = np.where(known, values, -np.inf).max(axis=0), np.where(known, values, np.inf).min(axis=0)
    return np.where(known.any(axis=0), top - low, 0.0)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric_from: int = 1) -> str:
    """Cells are HTML."""
    def cell(tag: str, i: int, text: str) -> str:
        return f'<{tag} class="n">{text}</{tag}>' if i >= numeric_from else f"<{tag}>{text}</{tag}>"

    lines_ = ["".join(cell("th", i, t) for i, t in enumerate(head))]
    lines_ += ["".join(cell("td", i, t) for i, t in enumerate(row)) for row in rows]
    return f'<div class="scroll"><table>{"".join(f"<tr>{line}</tr>" for line in lines_)}</table></div>'


def _joint_table(r: Mapping) -> str:
    rows = []
    for name, j in r["action_error"]["joints"].items():
        cells = [escape(name)]
        for kind in ("first", "chunk", "served"):
            cells += [short_number(j[kind]["mae"]), short_number(j[kind]["p99"]), _percent(j[kind]["mae_normalised"])]
        rows.append(cells)
    head = ["joint"] + [f"{k}: {f}" for k in ("first step", "chunk", "served") for f in ("MAE", "P99", "MAE, norm.")]
    note = f"MAE and P99 in the command's units; normalised: by {r['action_error']['scale']}."
    return _table(head, rows) + f'<p class="small soft">{escape(note)}</p>'


def _horizon(r: Mapping) -> str:
    found = r["action_error"]["by_horizon_index"]
    mean, top = (np.array(found[k], np.float64) * 100 for k in ("mae_normalised", "p99_normalised"))  # NaN for None
    if not np.isfinite(mean).any():
        return "<p>Nothing to compare with.</p>"
    series = {"MAE": mean, "P99": top}
    note = f"{len(mean)} rows of the chunk, mean over the joints, normalised."
    chart = lines(series, (), 1 / r["control_hz"], "%", "error over the rows of the chunk")
    return chart + f'<p class="small soft">{note}</p>'


def _boundary_table(r: Mapping) -> str:
    names = list(r["boundary"])
    rows = []
    for key, name, words, goal in BOUNDARY_ROWS:
        values = [r["boundary"][n][key] for n in names]
        cells = [f'<span class="soft">{name}</span> {escape(words)}', *(short_number(v) for v in values), escape(goal)]
        rows.append(cells)
    switches = [str(r["boundary"][n]["switches"]) for n in names]
    rows.append(["switches", *switches, ""])
    note = "Every strategy joins the same chunks; in the units of the commands."
    return _table(["", *names, "goal"], rows) + f'<p class="small soft">{note}</p>'


def _limits(r: Mapping) -> str:
    found = r["limits"]
    changed = found["commands_changed_by_the_guard"]
    rows = [[escape(n), str(v), str(changed[n])] for n, v in found["rows_outside_range"].items()]
    note = f"Of {found['rows']} predicted rows and {r['ticks']} ticks."
    return _table(["joint", "rows outside the range", "commands changed by the guard"], rows) + f'<p class="small soft">{note}</p>'


def _skips(r: Mapping) -> str:
    counts = (
        (r["not_asked"]["skipped_ticks"], "tick without a request"),
        (r["not_asked"]["ticks_not_ready"], "tick before the inputs were ready"),
        (r["refused_messages"], "message refused"), (r["unreadable_messages"], "message not usable"),
    )  # fmt: skip
    rows = [[f"{escape(k)}: {words}", str(v)] for found, words in counts for k, v in found.items()]
    rows += [[f"{escape(k)} (noted)", str(v)] for k, v in r["faults"].items()]
    rows += [[f"{escape(k.replace('_', ' '))}", str(v)] for k, v in r["runner"].items()]
    rows += [["ticks held", str(r["held_ticks"])], ["ticks without a command", str(r["silent_ticks"])]]
    first = "".join(f"<li>{escape(k)}: {escape(text)}</li>" for k, text in r["reasons"].items())
    listed = f'<p class="small soft">First seen as:</p><ul class="small soft">{first}</ul>' if first else ""
    return _table(["reason", "count"], rows) + listed


def _latency(total: BagOutcome, timing: Mapping) -> str:
    marks = {k.upper(): v for k, v in timing["model_latency_ms"].items() if v is not None}
    chart = histogram(total.model_ms, marks, "ms per policy call", "model latency histogram")
    return chart + f'<p class="small soft">{len(total.model_ms)} calls, wall time, {timing["threads"]} thread(s).</p>'


def _bag_table(bags: Sequence[Mapping]) -> str:
    rows = [
        [escape(b["bag"]), f"{b['duration_s']:.1f} s", str(b["episodes"]), str(b["requests"]),
         _percent(b["mae_normalised"]["chunk"]), _percent(b["mae_normalised"]["served"]), "yes" if b["verified"] else "no"]
        for b in bags
    ]  # fmt: skip
    return _table(["bag", "length", "episodes", "requests", "chunk MAE", "served MAE", "verified"], rows)


def comparison_html(
    names: tuple[str, str], found: Mapping[str, Difference | None], verdict: Verdict, results: tuple[Mapping, Mapping]
) -> str:
    """The card that says whether B may take A's place."""
    rows = []
    words = {"chunk": "error of whole chunks", "first": "error of the first step", "served": "error of served commands"}
    for kind, d in found.items():
        if d is not None:
            span = f"{change(d.low)} to {change(d.high)}"
            rows.append([words[kind], _percent(d.a), _percent(d.b), change(d.relative), span, str(d.units)])
    for key, name, text, _ in BOUNDARY_ROWS:
        a, b = (r["boundary"].get(r["splice"], {}).get(key) for r in results)
        label = f"{name} {text}" if name else text
        rows.append([escape(label), short_number(a), short_number(b), "", "", ""])
    table = _table(["", "A", "B", "B against A", "95 % interval", "pairs"], rows)
    mark = "ok" if verdict.passes else "no"
    say = f'<p><span class="tag {mark}">{verdict.word}</span> {escape(verdict.sentence)}</p>'
    sides = f'<p class="small soft">A: {escape(names[0])}; B: {escape(names[1])}; same bags, same noise.</p>'
    return _wide("A against B", say + sides + table)
