"""One Euler step of flow matching: action tokens in, expert, velocity out, actions updated in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ops.table import Epilogue
from ..types import F32
from .adarms import ExpertBuffers, ExpertLayer, ExpertSites, expert_forward, expert_forward_joined
from .linear import Linear, linear
from .plan import Precision


@dataclass(frozen=True)
class DenoiseWeights:
    """`action_out` is multiplied by dt = -1/num_steps at load (weight and bias), so its residual epilogue is the Euler step."""

    action_in: Linear
    layers: Sequence[ExpertLayer]
    action_out: Linear


@dataclass(frozen=True)
class StepStyles:
    """Pointers to the precomputed adaRMS styles [3, D] fp32 of one denoise step."""

    layers: Sequence[tuple[int, int]]
    final: int


def denoise_step(
    ops: Any,
    b: ExpertBuffers,
    actions: int,
    final: int,
    w: DenoiseWeights,
    d: Any,
    s: ExpertSites,
    p: Precision,
    styles: StepStyles,
    *,
    attn: Any,
    rows: int,
    stream: int = 0,
) -> None:
    """actions [rows, action_dim] fp32 <- actions + dt * v(actions, t). final [rows, D] is a scratch buffer (fp32: the action
    projections are fp32 in every plan, so that the actions are never rounded on their way).

    x_{t+dt} = x_t + dt v, accumulated in fp32 (openpi models_pytorch/pi0_pytorch.py sample_actions).
    """
    linear(ops, actions, w.action_in, b.h, rows, Epilogue.BIAS, out_dtype=p.wide, stream=stream)
    expert_forward(ops, b, w.layers, d, s, p, styles.layers, attn=attn, rows=rows, stream=stream)
    ops.ada_rms_norm(b.h, styles.final, final, 0, rows, d.width, d.rms_eps, p.wide, w.action_out.dtype, stream)
    linear(
        ops, final, w.action_out, actions, rows, Epilogue.BIAS_RESIDUAL,
        res=actions, res_dtype=F32, out_dtype=F32, stream=stream,
    )  # fmt: skip


def denoise_joined(
    ops: Any,
    b: ExpertBuffers,
    actions: int,
    final: int,
    w: DenoiseWeights,
    d: Any,
    sites: Sequence[ExpertSites],
    p: Precision,
    styles: Sequence[StepStyles],
    *,
    attn: Any,
    rows: int,
    stream: int = 0,
) -> None:
    """All of `denoise_step`'s steps in five calls a layer and one between steps, where the machine has them
    (`expert_forward_joined`). sites, styles: of every step."""

    def between(leave: bool, step: int) -> None:
        enter = step < len(sites)
        ops.action_step(
            final=final if leave else 0, out_w=w.action_out.w, out_b=w.action_out.bias, actions=actions,
            in_w=w.action_in.w, in_b=w.action_in.bias, h=b.h if enter else 0,
            style=styles[step].layers[0][0] if enter else 0, normed=b.qkv if enter else 0,
            out_scale=sites[step].layers[0][0] if enter else 0, M=rows, D=d.width, A=w.action_in.k,
            leave=int(leave), enter=int(enter), eps=d.rms_eps, normed_dtype=p.act, stream=stream,
        )  # fmt: skip

    between(False, 0)
    for step, (site, style) in enumerate(zip(sites, styles, strict=True)):
        expert_forward_joined(
            ops, b, w.layers, d, site, p, style.layers, style.final, final, w.action_out.dtype, attn=attn, rows=rows, stream=stream
        )
        between(True, step + 1)
