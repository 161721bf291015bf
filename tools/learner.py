"""Samples on the device and the optimisation step: batches, augmentation, flow-matching loss, AdamW, EMA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pi05_model import ModelSize, Pi05
from policy_io import Stats
from prompt_tokens import BINS, PromptTable


class Samples:
    """All samples in device memory, by source ('expert' or 'policy'), read shard by shard."""

    def __init__(self, device: torch.device):
        self.device = device
        self._parts: dict[str, list[dict[str, torch.Tensor]]] = {}
        self._sizes: dict[str, list[int]] = {}

    def add(self, path: Path, source: str, keep_every: int = 1) -> int:
        """Reads one .npz shard (no pickled objects)."""
        with np.load(path, allow_pickle=False) as z:
            part = {
                k: torch.from_numpy(z[k][::keep_every]).to(self.device) for k in ("images", "state", "chunk", "prompt")
            }
        self._parts.setdefault(source, []).append(part)
        self._sizes.setdefault(source, []).append(len(part["state"]))
        return len(part["state"])

    def count(self, source: str) -> int:
        return sum(self._sizes.get(source, []))

    def arrays(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """(states [N, 8], chunks [N, H, 7]) for statistics."""
        parts = self._parts[source]
        return tuple(torch.cat([p[k] for p in parts]).cpu().numpy() for k in ("state", "chunk"))

    def draw(self, n: int, source: str, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """n samples with replacement: a few shards, chosen by size, so that one gather per shard is enough."""
        sizes = np.asarray(self._sizes[source], np.float64)
        shards = rng.choice(len(sizes), size=n, p=sizes / sizes.sum())
        out: dict[str, list[torch.Tensor]] = {}
        for shard, times in zip(*np.unique(shards, return_counts=True), strict=True):
            at = torch.from_numpy(rng.integers(0, self._sizes[source][shard], times)).to(self.device)
            for key, rows in self._parts[source][shard].items():
                out.setdefault(key, []).append(rows[at])
        return {k: torch.cat(v) for k, v in out.items()}


class Learner:
    """A model, its optimiser and its moving average."""

    def __init__(self, size: ModelSize, table: PromptTable, state: Stats, actions: Stats, device: torch.device, *,
                 lr: float = 1e-3, weight_decay: float = 0.02, draws: int = 8, ema: float = 0.999, seed: int = 0,
                 compile_model: bool = False, init: dict[str, torch.Tensor] | None = None):  # fmt: skip
        torch.manual_seed(seed)
        self.device, self.lr, self.draws, self.ema_rate, self.steps = device, lr, draws, ema, 0
        self.model = Pi05(size)
        if init is not None:
            self.model.load_state_dict(init)
        self.model.to(device)
        decay = [p for p in self.model.parameters() if p.dim() > 1]
        rest = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=device.type == "cuda")
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self._live = dict(self.model.state_dict())
        self._loss = torch.compile(self.model.loss) if compile_model else self.model.loss
        t = lambda a: torch.as_tensor(np.asarray(a), device=device)  # noqa: E731
        self._rows, self._hole, self._valid = t(table.rows), t(table.hole), t(table.valid)
        self._number, self._bins = t(table.number_id), t(BINS).float()
        self._state = (t(state.q01), t(state.q99))
        self._actions = (t(actions.q01), t(actions.q99))
        # metres; about one bin for the position, half a millimetre for the fingers, nothing for the constant angles
        self._state_noise = t(np.array([2e-3, 2e-3, 1e-3, 0, 0, 0, 5e-4, 5e-4], np.float32))

    def tokens(self, prompt: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt rows [B] and raw states [B, 8] -> tokens [B, L], valid lengths [B]; as PromptTable.fill."""
        q01, q99 = self._state
        norm = (state - q01) / (q99 - q01 + 1e-6) * 2 - 1
        bins = torch.bucketize(norm, self._bins, right=True) - 1
        rows = self._rows[prompt].clone()
        at = self._hole[prompt][:, None] + torch.arange(state.shape[1], device=self.device)
        rows.scatter_(1, at, self._number[bins + 1])
        return rows, self._valid[prompt]

    def step(self, batch: dict[str, torch.Tensor], lr_scale: float) -> torch.Tensor:
        """One update; returns the loss (on the device, detached)."""
        images = self._augment(batch["images"])
        state = batch["state"] + self._state_noise * torch.randn_like(batch["state"])
        tokens, valid = self.tokens(batch["prompt"], state)
        q01, q99 = self._actions
        actions = (batch["chunk"] - q01) / (q99 - q01 + 1e-6) * 2 - 1
        b, h, d = actions.shape
        noise = torch.randn(b, self.draws, h, d, device=self.device)
        t = torch.rand(b, self.draws, device=self.device) ** (1 / 1.5) * 0.999 + 0.001  # Beta(1.5, 1)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * lr_scale
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self._loss(images, tokens, valid, actions, noise, t)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        rate = min(self.ema_rate, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self._live.values()), 1 - rate)
        return loss.detach()

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        """Brightness, contrast and colour balance per image, a little sensor noise. uint8 in, uint8 out."""
        b, v = images.shape[:2]
        x = images.float()
        gain = 1 + 0.12 * (2 * torch.rand(b, v, 1, 1, 3, device=x.device) - 1)
        lift = 12 * (2 * torch.rand(b, v, 1, 1, 1, device=x.device) - 1)
        x = x * gain + lift + 3.0 * torch.randn_like(x)
        return x.clamp_(0, 255).to(torch.uint8)

    def weights(self) -> dict[str, torch.Tensor]:
        """The averaged weights."""
        return self.ema
