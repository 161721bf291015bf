"""AdaRMS styles of every denoise step: the time enters Pi0.5 only through them, so they are computed once at load."""

from __future__ import annotations

import numpy as np

from .dims import Pi05Dims


def denoise_times(num_steps: int) -> np.ndarray:
    """t_k = 1 - k/N, k = 0..N-1, float64 [N] (openpi pi0_pytorch.py sample_actions: from noise at 1 towards data at 0)."""
    return 1.0 - np.arange(num_steps, dtype=np.float64) / num_steps


def time_embedding(t: np.ndarray, width: int, min_period: float, max_period: float) -> np.ndarray:
    """[sin(2 pi t / p), cos(2 pi t / p)], periods p log-spaced; computed in float64, float32 [N, width].

    openpi models_pytorch/pi0_pytorch.py create_sinusoidal_pos_embedding.
    """
    period = min_period * (max_period / min_period) ** np.linspace(0.0, 1.0, width // 2)
    angle = 2.0 * np.pi * t[:, None] / period
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1.0 + np.exp(-x))


def precompute_styles(
    dims: Pi05Dims,
    time_mlp: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    dense: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """float32 [num_steps, norms, 3, D]: (scale, shift, gate) of each norm at each step.

    time_mlp: (w_in, b_in, w_out, b_out). dense: (w [3D, D], b [3D]) per norm in forward order: attention and MLP norm of
    each layer, then the final norm. Condition = silu(out(silu(in(embedding)))).
    """
    w_in, b_in, w_out, b_out = time_mlp
    emb = time_embedding(denoise_times(dims.num_steps), dims.expert.width, dims.time_min_period, dims.time_max_period)
    cond = silu(silu(emb @ w_in.T + b_in) @ w_out.T + b_out)
    rows = [cond @ w.T + b for w, b in dense]
    return np.stack(rows, axis=1).reshape(dims.num_steps, len(dense), 3, dims.expert.width).astype(np.float32)
