"""Turns a folder written by tools/train.py into the bundled checkpoint: bf16 weights, statistics, card, manifest.

python tools/export.py data/run --out flashrt_ros/sim/tabletop/policy
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from policy_io import load_policy, load_weights, save_policy  # noqa: E402

from flashrt_core.core.manifest import write_manifest  # noqa: E402

LIMIT_BYTES = 12_000_000
TEMPLATE = Path(__file__).with_name("card_template.md")


def card(metrics: dict, size_vocab: int, notes: list[str]) -> str:
    """The model card, from the figures the training run wrote."""
    o = metrics["options"]
    keys = ("seed", "minutes", "episodes", "rounds", "round_episodes", "round_steps", "workers", "device")
    flags = " ".join(f"--{k.replace('_', '-')} {o[k]}" for k in keys) + (" --compile" if o["compile"] else "")
    rounds = []
    for r in metrics["rounds"]:
        check = r.get("check_of_last")
        checked = f"{check['base']:.2f}, {check['delay_4']:.2f}" if check else "-"
        good, count = r["data_success"]
        rounds.append(
            f"| {r['round']} | {r['updates']:,} | {r['loss']:.4f} | {r['expert_samples']:,} / {r['policy_samples']:,} "
            f"| {good}/{count} | {checked} |"
        )
    table = [
        f"| {name} | {row['successes']}/{row['episodes']} | {100 * row['rate']:.1f} % "
        f"| {100 * row['wilson95'][0]:.1f}-{100 * row['wilson95'][1]:.1f} % | {row['mean_steps']} |"
        for name, row in metrics["evaluation"].items()
    ]
    return TEMPLATE.read_text().format(
        parameters=metrics["parameters"], vocab=size_vocab, expert_episodes=metrics["episodes"]["expert"],
        policy_episodes=metrics["episodes"]["policy"], expert_samples=metrics["samples"]["expert"],
        policy_samples=metrics["samples"]["policy"], first_seed=o["seed"] * 100_000, updates=metrics["updates"],
        batch=o["batch"], draws=o["draws"], lr=o["lr"], weight_decay=o["weight_decay"], ema=o["ema"],
        seconds=metrics["seconds"], minutes=o["minutes"], command=f"python tools/train.py --out data/run {flags}",
        rounds="\n".join(rounds), episodes=o["eval_episodes"], table="\n".join(table),
        notes="".join(f"* {note}\n" for note in notes),
    )  # fmt: skip


def export(run: Path, out: Path, notes: list[str]) -> int:
    """Writes the checkpoint folder, `notes` as further lines of its card; returns the size of its weights in bytes."""
    policy = load_policy(run)  # also checks every key and shape
    weights = load_weights(run)
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key}: not finite")
    save_policy(out, weights, policy.model.size, policy.state, policy.actions, policy.tokenizer)
    metrics = json.loads((run / "metrics.json").read_text())
    (out / "training.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (out / "README.md").write_text(card(metrics, policy.model.size.vocab_size, notes))
    write_manifest(out)
    size = (out / "model.safetensors").stat().st_size
    if size > LIMIT_BYTES:
        raise ValueError(f"model.safetensors: {size} bytes, limit {LIMIT_BYTES}")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder written by tools/train.py")
    parser.add_argument("--out", type=Path, default=Path("flashrt_ros/sim/tabletop/policy"))
    parser.add_argument("--note", action="append", default=[], help="a further line of the card; may be repeated")
    args = parser.parse_args()
    size = export(args.run, args.out, args.note)
    sys.stdout.write(f"{args.out}: {size:,} bytes of weights\n")


if __name__ == "__main__":
    main()
