"""Figures and page parts of a run over DDS, on top of those of `flashrt demo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ..evaluation.charts import histogram
from ..evaluation.metrics import percentiles
from ..evaluation.report import PageParts
from ..evaluation.rollout import Rollout
from ..evaluation.summary import summarise
from .witnesses import RosEpisode

# Keys besides those of summary.TIMING_KEYS that depend on the machine's speed.
ACCOUNTS = ("published", "received", "applied", "surplus", "lost", "repeated", "foreign")


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """{'p50', 'p99', 'p999', 'max'} of the values; None where there is no value."""
    if not len(values):
        return {"p50": None, "p99": None, "p999": None, "max": None}
    data = np.asarray(values, np.float64)
    named = {"p50": 50, "p99": 99, "p999": 99.9, "max": 100}
    return {name: round(float(np.percentile(data, q)), 4) for name, q in named.items()}


def ros_summary(
    runs: Sequence[RosEpisode], rows: Sequence[Mapping[str, object]], what: Rollout, seed: int, wall_s: float,
    sim: Mapping[str, object], recorder: Mapping[str, Mapping[str, object]], settings: Mapping[str, object],
) -> dict[str, object]:  # fmt: skip
    """The whole of result.json. rows: the simulation's `episode` events; sim, recorder: their last events.

    `lost_or_repeated_actions` counts over all activations: indices that were published and not executed although a later
    one was, or never arrived, or arrived or were executed twice (commands.Audit), and executed commands that differ from
    the recorded command or chunk row of the same index.
    """
    out = summarise([r.episode for r in runs], what, seed, wall_s)
    accounts = {k: sum(int(r["audit"].get(k) or 0) for r in rows) for k in ACCOUNTS}
    bag, plan = sum(r.bag_mismatches for r in runs), sum(r.plan_mismatches for r in runs)
    nodes = [r["node"] for r in rows if r.get("node")]
    by_kind: dict[str, list[Mapping[str, object]]] = {}
    for topic, passage in recorder.items():
        by_kind.setdefault(str(topic), []).append(passage)
    out |= {
        "lost_or_repeated_actions": accounts["lost"] + accounts["repeated"] + bag + plan,
        "actions": {**accounts, "bag_mismatches": bag, "plan_mismatches": plan},
        "held_steps": sum(int(r["missing"]) for r in rows),
        "start_ticks": sum(r.start_ticks for r in runs),
        "most_commands_waiting": max((int(r["waited_max"]) for r in rows), default=0),
        "tick_lateness_ms": spread([x for r in runs for x in r.lateness_ms]),
        "node_tick_late_ms": {
            "p50": _most(nodes, "tick_late_p50_ms", np.median), "p99": _most(nodes, "tick_late_p99_ms", max),
            "max": _most(nodes, "tick_late_max_ms", max),
        },
        "skipped_ticks": sum(int(n["skipped"]) for n in nodes),
        "image_age_ms": percentiles([x for r in runs for x in r.image_age_ms]),
        "transport_delay_ms": {
            "command": percentiles([x for r in runs for x in r.transport_ms]),
            **{topic.strip("/"): p["delay_ms"] for topic, p in recorder.items() if p["messages"]},
        },
        "sim": dict(sim),
        "bag": {t: {k: p[k] for k in ("messages", "lost", "repeated")} for t, p in recorder.items()},
        "ros": dict(settings),
    }  # fmt: skip
    return out


def _most(nodes: Sequence[Mapping[str, float]], key: str, how) -> float | None:
    return round(float(how([n[key] for n in nodes])), 4) if nodes else None


def page_parts(result: Mapping[str, object], runs: Sequence[RosEpisode]) -> PageParts:
    """What the page of a run over DDS shows besides."""
    late, age = result["tick_lateness_ms"], result["image_age_ms"]
    a, delay = result["actions"], result["transport_delay_ms"]["command"]
    figures = (
        ("Lost or repeated actions", str(result["lost_or_repeated_actions"]),
         f"of {a['published']} published, {a['applied']} executed, {a['surplus']} after an episode's end"),
        ("Tick lateness P50", _ms(late["p50"]), f"P99 {_ms(late['p99'])}, P99.9 {_ms(late['p999'])}, max {_ms(late['max'])}"),
        ("Image age P50", _ms(age["p50"]), f"P95 {_ms(age['p95'])}, P99 {_ms(age['p99'])}, at the request"),
        ("Transport delay P50", _ms(delay["p50"]), f"P95 {_ms(delay['p95'])}, P99 {_ms(delay['p99'])}, commands over DDS"),
    )  # fmt: skip
    lateness = [x for r in runs for x in r.lateness_ms]
    ages, delays = [x for r in runs for x in r.image_age_ms], [x for r in runs for x in r.transport_ms]
    sections = (
        ("Tick lateness", _chart(lateness, {"P50": late["p50"], "P99": late["p99"]}, "ms after the deadline", "commands",
         "When each command was published, against the activation's own grid of 50 ms.")),
        ("Image age", _chart(ages, {k.upper(): v for k, v in age.items()}, "ms at the request", "requests",
         "Of the oldest image that a request was made with.")),
        ("Transport delay of commands", _chart(delays, {k.upper(): v for k, v in delay.items()}, "ms", "commands",
         "From publication in the node to receipt in the simulation, callback included.")),
        ("Accounts", _accounts(result)),
    )  # fmt: skip
    return PageParts(
        title="A trained policy on the tabletop task, over DDS",
        intro="Simulation, policy node and recorder are processes of their own; every message crosses DDS.",
        figures=figures, sections=sections,
        note="Scenes and prompts are the seed's; timing is real, so that two runs differ. All figures of this page are in "
        "result.json, every message is in the bag.",
    )  # fmt: skip


def _ms(v: float | None) -> str:
    return "-" if v is None else f"{v:.2f} ms"


def _chart(values: Sequence[float], marks: Mapping[str, float | None], unit: str, what: str, words: str) -> str:
    known = {k: v for k, v in marks.items() if v is not None}
    drawn = histogram(values, known, unit, f"{what}: {unit}", what)
    return f'{drawn}<p class="small soft">{len(values)} {escape(what)}. {escape(words)}</p>'


def _accounts(result: Mapping[str, object]) -> str:
    """Who counted what, as a table."""
    a = result["actions"]
    rows = [
        ("published, by the node's own count", a["published"]), ("received by the simulation, by DDS number", a["received"]),
        ("executed, one per control step", a["applied"]), ("came after an episode's end, not executed", a["surplus"]),
        ("lost", a["lost"]), ("repeated", a["repeated"]), ("differ from the recorded command", a["bag_mismatches"]),
        ("another row of the recorded chunk than the index says", a["plan_mismatches"]),
        ("control steps without a command (held)", result["held_steps"]), ("ticks that the node skipped", result["skipped_ticks"]),
        ("ticks before the first chunk of an episode", result["start_ticks"]),
    ]  # fmt: skip
    body = "".join(f'<tr><td>{escape(n)}</td><td class="n">{v}</td></tr>' for n, v in rows)
    return f'<div class="scroll"><table>{body}</table></div>'
