"""Rounding of a weight to E4M3 that keeps its product with the mean of what it multiplies.

Nearest rounding is off by 2.6 % of each weight, and what a weight is off by meets every token alike: nothing averages it out,
and the mean of the input, which all tokens share, carries it through the model. A bias could take it back (Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2) where the GEMM has one. Here a few weights
of each row are rounded to their other neighbour instead, those where it costs least, until row @ mean is what it was.
"""

from __future__ import annotations

import torch

from ..core.quant.e4m3 import E4M3_MAX

_ROWS = 2048  # at once: temporaries of some 10 times their size
_TURNED = (
    4  # one weight in so many may be rounded away in a pass; some 0.3 * sqrt(K) are needed, more where a channel towers
)
_PASSES = 2  # the second one takes back what the last weight of the first overshot
_SMALLEST_EXPONENT = -6


def round_to_e4m3(x: torch.Tensor, mean: torch.Tensor | None = None) -> torch.Tensor:
    """float8_e4m3fn [N, K] of fp32 x [N, K] within +-448; values past it saturate.

    mean: fp32 [K], the mean input; None rounds to nearest. Every result is one of the two neighbours of its value.
    """
    if mean is None:
        return _nearest(x)
    return torch.cat([_keeping(part, mean).view(torch.uint8) for part in x.split(_ROWS)]).view(torch.float8_e4m3fn)


def _nearest(x: torch.Tensor) -> torch.Tensor:
    """Clamped first: torch's cast turns what rounds past 448 into NaN."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def _keeping(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    q, weight = _nearest(x).float(), mean.abs()
    exponent = torch.frexp(x).exponent.sub_(1).clamp_(min=_SMALLEST_EXPONENT)  # x = 1.m * 2^exponent
    spacing = torch.ldexp(torch.ones_like(x), exponent - 3)
    count = -(-x.shape[1] // _TURNED)
    for _ in range(_PASSES):
        off = q - x
        excess = off @ mean
        step = -off.sign() * spacing  # to the other neighbour
        gain = spacing * weight  # of the excess, if that is where it comes from
        helps = (off.sign() * mean.sign() == excess.sign()[:, None]) & (off * mean != 0)
        helps &= (off.abs() <= spacing / 2) & ((q + step).abs() <= E4M3_MAX)  # once only; not past the largest value
        helps &= gain < 2 * excess.abs()[:, None]  # more would make the sum worse
        cost = torch.where(
            helps, (spacing - 2 * off.abs()) / weight, torch.inf
        )  # added square error / spacing, per gain
        cost, at = cost.topk(count, dim=1, largest=False)
        gained = torch.where(cost.isfinite(), gain.gather(1, at), 0.0)
        enough = gained.cumsum(1) - gained / 2 <= excess.abs()[:, None]
        q.scatter_add_(1, at, torch.where(enough & cost.isfinite(), step.gather(1, at), 0.0))
    return q.to(torch.float8_e4m3fn)
