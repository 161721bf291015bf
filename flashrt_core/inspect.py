"""Describes a checkpoint without loading its weights: what `flashrt inspect` prints, as JSON-able data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from .core.checkpoint import Checkpoint, open_checkpoint
from .core.tokenizer import load_tokenizer
from .core.utils.norm_stats import Stats, load_norm_stats
from .core.weight_source import FileSource
from .errors import CheckpointError, FlashRTError
from .models.pi05.profile import Pi05Profile, check_dims, load_profile
from .models.pi05.tensors import EMBEDDINGS, embedding_key, expected_tensors, unused_tensors

_DECISIONS = (
    "layout", "views", "state_dim", "robot_action_dim", "state_in_prompt", "state_norm", "action_norm", "norm_eps",
    "delta_action_dims", "norm_asset", "allow_minmax_stats",
)  # fmt: skip
_FROM_DIMS = {"action_horizon": "horizon", "num_steps": "num_steps", "prompt_capacity": "prompt_capacity"}


def inspect_checkpoint(
    path: str | os.PathLike[str],
    profile: str | Path | None = None,
    *,
    digest: bool = True,
    tokenizer: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """Files, sizes, digest, layout, parameters, profile decisions with their sources, statistics, tokenizer, problems.

    Reads headers, small JSON files and (unless digest=False) every byte once for the sha256; no weights stay in memory.
    Nothing that is wrong with the checkpoint raises: it is listed under "problems", one line each, in the order found.
    """
    problems: list[str] = []
    report: dict[str, object] = {"path": str(path), "problems": problems}

    def attempt(name: str, step: Callable[[], object]) -> object:
        try:
            report[name] = step()
        except FlashRTError as exc:
            problems.append(f"{name}: {exc}")
            report[name] = None
        return report[name]

    checkpoint: Checkpoint | None = None
    source: FileSource | None = None
    chosen: Pi05Profile | None = None

    def weights() -> dict[str, object]:
        nonlocal checkpoint, source
        checkpoint = open_checkpoint(path)
        source = checkpoint.source()
        return _weights(checkpoint, source)

    def decisions() -> dict[str, object]:
        nonlocal chosen
        chosen = load_profile(path, profile)
        return _profile(chosen)

    attempt("weights", weights)
    if checkpoint is not None and digest:
        attempt("digest", lambda: checkpoint.digest(progress))
        attempt("manifest", lambda: checkpoint.verify())
    attempt("profile", decisions)
    if chosen is not None:
        folder = Path(path).expanduser()
        folder = folder.parent if folder.is_file() else folder
        if source is not None:
            attempt("tensors", lambda: _tensors(chosen, source))
        attempt("norm_stats", lambda: _norm_stats(folder, chosen))
        attempt("tokenizer", lambda: _tokenizer(folder, chosen, tokenizer))
    return report


def _weights(checkpoint: Checkpoint, source: FileSource) -> dict[str, object]:
    dtypes: dict[str, dict[str, int]] = {}
    for key in source.keys():
        info = source.info(key)
        entry = dtypes.setdefault(info.dtype, {"tensors": 0, "parameters": 0})
        entry["tensors"] += 1
        entry["parameters"] += info.numel
    return {
        "files": [{"name": n, "bytes": f.size, "tensors": len(f)} for n, f in sorted(checkpoint.files.items())],
        "bytes": sum(f.size for f in checkpoint.files.values()),
        "sharded": len(checkpoint.files) > 1,
        "prefix": source.prefix,
        "tensors": len(source.keys()),
        "parameters": sum(entry["parameters"] for entry in dtypes.values()),
        "dtypes": dict(sorted(dtypes.items())),
        "manifest": checkpoint.manifest is not None,
    }


def _profile(profile: Pi05Profile) -> dict[str, object]:
    values = {name: getattr(profile, name) for name in _DECISIONS}
    values |= {name: getattr(profile.dims, attribute) for name, attribute in _FROM_DIMS.items()}
    return {
        "name": profile.name,
        "decisions": {
            name: {"value": list(v) if isinstance(v, tuple) else v, "source": profile.source.get(name, "default")}
            for name, v in values.items()
        },
        "dims": dataclasses.asdict(profile.dims),
    }


def _tensors(profile: Pi05Profile, source: FileSource) -> dict[str, object]:
    check_dims(profile, source)
    wanted = expected_tensors(profile.dims).keys() - set(EMBEDDINGS) | {embedding_key(source)}
    unread = set(unused_tensors(profile.dims))
    missing = [key for key in wanted if not source.has(key) and key not in unread]
    extra = [key for key in source.keys() if key not in wanted and key not in EMBEDDINGS]
    if missing or extra:
        raise CheckpointError(
            "tensors",
            expected="exactly the names of the model",
            found=f"{len(missing)} missing ({', '.join(sorted(missing)[:5])}), "
            f"{len(extra)} extra ({', '.join(sorted(extra)[:5])})",
        )
    return {"embedding": embedding_key(source), "agree_with_dims": True}


def _norm_stats(folder: Path, profile: Pi05Profile) -> dict[str, object]:
    stats = load_norm_stats(folder, profile)

    def block(s: Stats) -> dict[str, list[float]]:
        return {
            name: [float(v) for v in getattr(s, name)]
            for name in ("mean", "std", "q01", "q99")
            if getattr(s, name) is not None
        }

    return {"source": stats.source, "state": block(stats.state), "actions": block(stats.actions)}


def _tokenizer(folder: Path, profile: Pi05Profile, path: str | Path | None) -> dict[str, object]:
    found = load_tokenizer(folder, expected_vocab=profile.dims.vocab_size, path=path)
    return {"path": found.path, "pieces": found.vocab_size, "bos_id": found.bos_id, "rows": profile.dims.vocab_size}
