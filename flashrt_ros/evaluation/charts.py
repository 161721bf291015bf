"""Small SVG charts for the report: they take their colours from the page, so they fit a light and a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH = 520  # of every viewBox; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 34
CHARACTER = 7.4  # width of one at the page's 13 px, in a wide sans-serif
NAME_WIDTH = 320  # at most, of the names beside bars


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, words: object, anchor: str = "middle", kind: str = "t") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(str(words))}</text>'


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers inside [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    unit = 10.0 ** np.floor(np.log10(raw))
    step = unit * min((m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw), default=10)
    return [float(v) for v in np.arange(np.ceil(low / step) * step, high + step * 1e-6, step)]


def _number(v: float) -> str:
    v = 0.0 if abs(v) < 1e-12 else v  # never "-0"
    return f"{v:.3g}" if abs(v) < 1000 else f"{v:.0f}"


def histogram(values: Sequence[float], marks: dict[str, float], unit: str, label: str, what: str = "calls") -> str:
    """Counts of `values` with vertical lines at `marks` (name -> value). The last bin takes all above the 99.5 %.

    what: the things counted, for the tips.
    """
    height = 210
    data = np.asarray(values, dtype=np.float64)
    if not data.size:
        return _svg(60, [_text(WIDTH / 2, 34, "no data")], label)
    low, high = 0.0, float(max(np.percentile(data, 99.5), max(marks.values(), default=0.0))) * 1.05 or 1.0
    counts, edges = np.histogram(np.minimum(data, high), bins=32, range=(low, high))
    w, h = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM - 14
    base = TOP + 14 + h

    def x(v: float) -> float:
        return LEFT + (v - low) / (high - low) * w

    parts = [f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>']
    for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True):
        if n:
            bar = n / counts.max() * h
            box = f'x="{x(a) + 0.8:.1f}" y="{base - bar:.1f}" width="{x(b) - x(a) - 1.6:.1f}" height="{bar:.1f}"'
            tip = f"{n} {what}, {_number(a)}-{_number(b)} {unit}"
            parts.append(f'<rect class="bar" {box} rx="1.5"><title>{escape(tip)}</title></rect>')
    for v in _ticks(low, high, 5):
        parts.append(_text(x(v), base + 16, _number(v)))
    parts.append(_text(LEFT - 6, base - h + 5, counts.max(), "end"))
    parts.append(_text(WIDTH / 2, height - 4, unit))
    last = -1e9
    for name, v in sorted(marks.items(), key=lambda m: m[1]):
        parts.append(f'<line class="mark" x1="{x(v):.1f}" y1="{TOP + 4}" x2="{x(v):.1f}" y2="{base}"/>')
        if x(v) - last > 34:  # two labels on one spot are unreadable
            parts.append(_text(x(v), TOP, name, kind="t strong"))
            last = x(v)
    return _svg(height, parts, label)


def lines(series: dict[str, np.ndarray], boundaries: Sequence[int], period_s: float, unit: str, label: str) -> str:
    """Curves over time with a thin line at each chunk boundary and the curve's name at its end; NaN leaves a gap."""
    height, right = 210, 34
    known = {name: np.flatnonzero(np.isfinite(s)) for name, s in series.items()}
    longest = max((len(series[name]) for name, at in known.items() if len(at)), default=0)
    if not longest:
        return _svg(60, [_text(WIDTH / 2, 34, "no data")], label)
    low = min(float(np.min(series[name][at])) for name, at in known.items() if len(at))
    high = max(float(np.max(series[name][at])) for name, at in known.items() if len(at))
    pad = max(0.05 * (high - low), 1e-9)
    low, high = low - pad, high + pad
    w, h = WIDTH - LEFT - right, height - TOP - BOTTOM

    def x(i: float) -> float:
        return LEFT + i / max(1, longest - 1) * w

    def y(v: float) -> float:
        return TOP + (high - v) / (high - low) * h

    parts = [f'<line class="seam" x1="{x(b):.1f}" y1="{TOP}" x2="{x(b):.1f}" y2="{TOP + h}"/>' for b in boundaries]
    parts += [
        f'<line class="grid" x1="{LEFT}" y1="{y(v):.1f}" x2="{LEFT + w}" y2="{y(v):.1f}"/>'
        + _text(LEFT - 6, y(v) + 4, _number(v), "end")
        for v in _ticks(low, high)
    ]
    parts += [_text(x(v / period_s), height - 18, _number(v)) for v in _ticks(0, (longest - 1) * period_s, 5)]
    parts.append(_text(LEFT + w / 2, height - 3, "seconds"))
    parts.append(_text(4, TOP - 3, unit, "start"))
    ends: list[float] = []
    for i, (name, values) in enumerate(series.items()):
        if not len(known[name]):
            continue
        for run in np.split(known[name], np.flatnonzero(np.diff(known[name]) > 1) + 1):
            ends_at = [run[0] + 0.4] if len(run) == 1 else []  # a single value: a short dash
            points = [f"{x(k):.1f},{y(float(values[int(k)])):.1f}" for k in [*run, *ends_at]]
            parts.append(f'<polyline class="line s{i}" points="{" ".join(points)}"/>')
        at = y(float(values[known[name][-1]])) + 4
        while any(abs(at - other) < 13 for other in ends):
            at += 13
        ends.append(at)
        parts.append(_text(LEFT + w + 6, at, name, "start", f"t f{i}"))
    return _svg(height, parts, label)


def bars(rows: Sequence[tuple[str, int, int]], label: str) -> str:
    """One horizontal bar a row: (name, successes, episodes). A name that has no room is cut; its tip has the whole."""
    step, longest = 25, max((len(name) for name, _, _ in rows), default=0)
    name_w = min(NAME_WIDTH, 16 + CHARACTER * longest)
    room = int((name_w - 16) / CHARACTER + 1e-6)
    parts = []
    w = WIDTH - name_w - 52
    for i, (name, wins, n) in enumerate(rows):
        top = 4 + i * step
        cut = name if len(name) <= room else name[: room - 1] + "…"
        fill = w * wins / max(1, n)
        parts += [
            f"<g><title>{escape(name)}</title>{_text(name_w - 8, top + 15, cut, 'end')}</g>",
            f'<rect class="track" x="{name_w:.1f}" y="{top + 4}" width="{w:.1f}" height="14" rx="3"/>',
            f'<rect class="bar good" x="{name_w:.1f}" y="{top + 4}" width="{fill:.1f}" height="14" rx="3"/>',
            _text(name_w + w + 8, top + 15, f"{wins}/{n}", "start", "t strong"),
        ]
    return _svg(8 + step * max(1, len(rows)), parts, label)
