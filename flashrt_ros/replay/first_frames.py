"""What the first requests saw: each view with the predicted and the recorded motion drawn over it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ..config.settings import RobotConfig
from ..evaluation.html import picture
from .outcome import FirstFrame

CURVES = 3  # joints drawn over a picture: those that the prediction moves most
SHOWN_PX = 224
NAME_LETTERS = 18
FRAME_STYLE = (
    ".frames{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,240px),1fr))}"
    ".frame{border:1px solid var(--line);border-radius:8px;overflow:hidden} .frame .w{padding:7px 10px 8px;font-size:13px}"
    ".over{position:relative;background:#000} .over img{display:block;width:100%;height:auto;image-rendering:auto}"
    ".over svg{position:absolute;inset:0;width:100%;height:100%} .over text{font:600 7px system-ui,sans-serif;fill:#fff;"
    "paint-order:stroke;stroke:#000;stroke-width:1.6px} .over polyline{fill:none;stroke-width:1.4;vector-effect:none}"
    ".over .c0{stroke:#7fb0ff} .over .c1{stroke:#5fe08a} .over .c2{stroke:#ffc46b} .over .r{stroke-dasharray:2 2;opacity:.9}"
    ".over text.c0{fill:#7fb0ff;stroke:#000} .over text.c1{fill:#5fe08a;stroke:#000} .over text.c2{fill:#ffc46b;stroke:#000}"
)


def frames_html(frames: Sequence[FirstFrame], robot: RobotConfig) -> str:
    """A grid of pictures, one per request and view."""
    parts = []
    for frame in frames:
        overlay = overlay_svg(frame, robot)
        for view, image in frame.images.items():
            words = f"{view}, at {frame.at_s:.2f} s, {frame.age_ms:.0f} ms old"
            shown = picture(_enlarged(image), words)
            parts.append(
                f'<div class="frame"><div class="over">{shown}{overlay}</div>'
                f'<div class="w">{escape(frame.prompt)}<br><span class="soft">{escape(words)}</span></div></div>'
            )
    note = "Over the picture: the predicted chunk (lines) and what was recorded (dashed), joints that move most, time to the right."
    return f'<p class="small soft">{note}</p><div class="frames">{"".join(parts)}</div>'


def _enlarged(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    side = max(SHOWN_PX, image.shape[0])
    return image if side == image.shape[0] else np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _short(name: str) -> str:
    """The end of a long name: joints of one arm begin alike."""
    return name if len(name) <= NAME_LETTERS else "…" + name[-NAME_LETTERS + 1 :]


def overlay_svg(frame: FirstFrame, robot: RobotConfig) -> str:
    """Curves of the chunk in the lower third of a 100 x 100 picture, each joint on its own scale."""
    predicted, recorded = frame.predicted.astype(np.float64), frame.recorded
    swing = np.ptp(predicted, axis=0) / np.array([max(d.upper - d.lower, 1e-9) for d in robot.actions])
    chosen = [int(i) for i in np.argsort(-swing, kind="stable")[:CURVES] if swing[i] > 0]
    parts = ['<rect x="0" y="62" width="100" height="38" fill="#000" opacity=".45"/>']
    for k, i in enumerate(chosen):
        known = recorded[np.isfinite(recorded[:, i]), i]
        both = np.concatenate([predicted[:, i], known])
        low, span = both.min(), max(np.ptp(both), 1e-9)

        def points(values: np.ndarray, low: float = low, span: float = span) -> str:
            steps = max(1, len(predicted) - 1)
            return " ".join(
                f"{4 + 92 * j / steps:.1f},{96 - 30 * (v - low) / span:.1f}" for j, v in enumerate(values) if np.isfinite(v)
            )

        parts.append(f'<polyline class="c{k}" points="{points(predicted[:, i])}"/>')
        if len(known):
            parts.append(f'<polyline class="c{k} r" points="{points(recorded[:, i])}"/>')
        parts.append(f'<text class="c{k}" x="4" y="{8 + 8 * k}">{escape(_short(robot.action_names[i]))}</text>')
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
