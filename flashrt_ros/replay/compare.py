"""Two policies, precisions or splice strategies on the same bags and the same noise: is B worse than A by more than a margin?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError, nearest
from flashrt_core.runtime.chunk import SPLICES

from .outcome import UNIT_FIELDS
from .settings import ReplaySettings

PRECISIONS = {"fp32": "full", "full": "full", "fp8": "fp8", "auto": "auto"}
KEYS = ("checkpoint", "precision", "splice", "profile", "hardware", "latency", "replan_ticks")
MIN_EPISODES = 8  # with so many the resampled unit is an episode, else a second of one
MIN_PAIRS = 5  # resampling fewer gives an interval that is too narrow, of one pair none at all
RESAMPLES = 4_000


def variant(text: str, base: ReplaySettings) -> ReplaySettings:
    """Settings for one side: a splice strategy, a precision, a checkpoint folder, or key=value pairs joined by commas."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if not sign:
            key, value = _kind_of(part), part
        if key not in KEYS:
            raise ConfigError(f"--compare {text}", found=f"key {key!r}", hint=nearest(key, KEYS))
        pairs[key] = value
    policy = {k: pairs[k] for k in ("checkpoint", "profile", "hardware") if k in pairs}
    if "precision" in pairs:
        policy["precision"] = choose("precision", pairs["precision"], PRECISIONS)
    node: dict[str, object] = {"splice": pairs["splice"]} if "splice" in pairs else {}
    if "replan_ticks" in pairs:
        try:
            node["replan_ticks"] = int(pairs["replan_ticks"])
        except ValueError:
            raise ConfigError("replan_ticks", expected="a whole number", found=pairs["replan_ticks"]) from None
    latency = type(base.latency)(pairs["latency"]) if "latency" in pairs else base.latency
    return replace(base, policy=replace(base.policy, **policy), node=replace(base.node, **node), latency=latency)


def choose(name: str, word: str, known: Mapping[str, str]) -> str:
    """`known[word]`. Raises ConfigError with the nearest name."""
    if word not in known:
        raise ConfigError(name, found=repr(word), hint=nearest(word, known))
    return known[word]


def _kind_of(word: str) -> str:
    """What a word without a key means."""
    if word in SPLICES:
        return "splice"
    if word in PRECISIONS:
        return "precision"
    if Path(word).exists():
        return "checkpoint"
    known = [*SPLICES, *PRECISIONS]
    raise ConfigError(
        f"--compare {word!r}", expected="a splice strategy, a precision, a checkpoint folder or key=value",
        found="none of them", hint=nearest(word, known),
    )  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Mean normalised |error| of both sides and B against A, with a 95 % interval from resampling whole units in pairs.

    relative: (b - a) / a; low, high: its interval. units: how many pairs.
    """

    a: float
    b: float
    relative: float
    low: float
    high: float
    units: int

    def to_json(self) -> dict[str, float | int]:
        return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


Units = Mapping[tuple[int, ...], np.ndarray]


def _episodes(units: Units) -> dict[tuple[int, ...], np.ndarray]:
    """Seconds added up to episodes."""
    episodes: dict[tuple[int, ...], np.ndarray] = {}
    for key, row in units.items():
        episodes[key[:-1]] = episodes.get(key[:-1], 0.0) + row
    return episodes


def _shared(a: Units, b: Units, at: int) -> list[tuple[int, ...]]:
    """Units in which both sides have an error of the kind whose count is in column `at`."""
    return sorted(k for k in a.keys() & b.keys() if a[k][at] > 0 and b[k][at] > 0)


def difference(a: Units, b: Units, kind: str, seed: int = 0) -> Difference | None:
    """B against A in one of UNIT_FIELDS; None where nothing can be paired. The same units give the same interval.

    Whole episodes are resampled where both sides have enough of them: errors within one are alike, which a resampling of
    seconds would take for certainty.
    """
    at = 2 * UNIT_FIELDS.index(kind)
    whole = _episodes(a), _episodes(b)
    keys = _shared(*whole, at + 1)
    if len(keys) >= MIN_EPISODES:
        a, b = whole
    else:
        keys = _shared(a, b, at + 1)
    if not keys:
        return None
    x, y = (np.array([side[k][at : at + 2] for k in keys]) for side in (a, b))  # [units, (sum, count)]
    rng, ratios = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        pick = rng.integers(0, len(keys), len(keys))
        ratios.append(_relative(x[pick].sum(axis=0), y[pick].sum(axis=0)))
    low, high = np.percentile(ratios, [2.5, 97.5])
    total_x, total_y = x.sum(axis=0), y.sum(axis=0)
    return Difference(
        float(total_x[0] / total_x[1]), float(total_y[0] / total_y[1]), _relative(total_x, total_y), float(low), float(high),
        len(keys),
    )  # fmt: skip


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    mean_a, mean_b = a[0] / a[1], b[0] / b[1]
    return float((mean_b - mean_a) / max(mean_a, 1e-9))


@dataclass(frozen=True)
class Verdict:
    """word: "within" (the whole interval is below the margin), "worse" (all above) or "unclear". kind: error it is about."""

    word: str
    kind: str
    margin: float
    sentence: str

    @property
    def passes(self) -> bool:
        return self.word == "within"


def judge(found: Mapping[str, Difference | None], same_model: bool, margin: float) -> Verdict:
    """Served commands decide where only the splicing differs, whole chunks where the model does."""
    kind = "served" if same_model else "chunk"
    d = found[kind]
    if d is None:
        return Verdict("unclear", kind, margin, "Nothing could be compared.")
    few = d.units < MIN_PAIRS
    word = "unclear" if few else "within" if d.high <= margin else "worse" if d.low > margin else "unclear"
    what = "the commands served" if same_model else "the predicted chunks"
    span = f"{change(d.relative)} (95 % interval {change(d.low)} to {change(d.high)}), from {100 * d.a:.3g} to {100 * d.b:.3g} %"
    said = {
        "within": f"B is within the margin of {100 * margin:g} %",
        "worse": f"B is worse by more than the margin of {100 * margin:g} %",
        "unclear": f"it is not shown that B is within the margin of {100 * margin:g} %",
    }[word]
    if few:
        said = f"only {d.units} second(s) could be compared, at least {MIN_PAIRS} are needed"
    return Verdict(word, kind, margin, f"Error of {what}, B against A: {span}: {said}.")


def change(relative: float) -> str:
    """A relative change in per cent; beyond a factor of 100 the number says nothing more, A is as good as free of errors."""
    return f"{100 * relative:+.1f} %" if relative < 100 else "more than +10,000 %"
