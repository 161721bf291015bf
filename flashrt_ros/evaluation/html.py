"""Parts that every report page is made of: the page around its body, cards, pictures inside the file."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np

from .report_style import STYLE


def document(title: str, body: str, style: str = "") -> str:
    """A whole page: no script, no link to anything outside the file. style: added to the common sheet."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def card(title: str, body: str) -> str:
    """A titled box; body is HTML."""
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def figure_cards(cards: list[tuple[str, str, str]]) -> str:
    """A row of (name, value, words)."""
    return '<div class="cards">' + "".join(
        f'<div class="card"><div class="name">{escape(n)}</div><b class="big">{escape(v)}</b>'
        f'<div class="small soft">{escape(t)}</div></div>' for n, v, t in cards
    ) + "</div>"  # fmt: skip


def picture(array: np.ndarray, alt: str) -> str:
    """uint8 [H, W, 3] as an <img> with its data inside."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array).save(out, "JPEG", quality=82)
    height, width = array.shape[:2]
    source = data_uri("jpeg", out.getvalue())
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="{source}">'


def data_uri(kind: str, raw: bytes) -> str:
    """An image file as the value of `src`."""
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode('ascii')}"


def milliseconds(v: float | None) -> str:
    return "-" if v is None else f"{v:.1f} ms"


def short_number(v: float | int | None) -> str:
    """Three digits; "-" for none."""
    return "-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)
