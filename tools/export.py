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

from policy_io import load_policy, load_weights, save_policy, write_manifest  # noqa: E402

LIMIT_BYTES = 12_000_000
CARD = """# Tabletop policy: a small Pi0.5

A Pi0.5 ({parameters:,} parameters, bf16) for the bundled tabletop task: it sees two 112 px images (agentview, wrist), an
8-d state written into the prompt as numbers, and a sentence; it answers with 10 actions of 7 values at 20 Hz. The layout
is openpi's (key names, `norm_stats.json`, SentencePiece tokenizer); `flashrt_profile.json` holds the sizes.

## Files
`model.safetensors` (bf16; the embedding once, as `paligemma_with_expert.paligemma.lm_head.weight`; no
`gemma_expert.lm_head`, which nothing reads), `assets/tabletop/norm_stats.json`, `paligemma_tokenizer.model` (BPE,
{vocab} pieces, bytes as a fallback, each number -1..255 one piece), `flashrt_profile.json`, `manifest.json` (SHA-256 of
each file).

## Training
Data: {expert_episodes} episodes of a scripted expert ({expert_samples:,} samples; half of them start with the hand anywhere,
random bursts push it off its path, chunk labels are the clean expert in branched physics) and {policy_episodes} DAgger episodes
({policy_samples:,} samples; the policy drives with replan intervals of 2-6 steps and delays of 0-4 steps, the expert labels).
Everything is simulated by the task itself; no third-party data. Episode seeds start at {first_seed}; seeds from 500000 on are
kept for evaluation. Colours, light and the agent camera vary per episode; images get colour and noise augmentation.
Updates: {updates:,} of batch {batch} with {draws} noise/time draws each, AdamW (lr {lr}, cosine, weight decay {weight_decay}),
EMA {ema}, bf16 autocast, {seconds:.0f} s in all with data and evaluation on one H200 and 16 CPU cores (training stopped
after {minutes} minutes). Loss is taken on the robot's 7 action dims; the other 25 enter and leave the expert through zero
weights, so they keep their noise and touch nothing.

    {command}
    python tools/export.py data/run --out flashrt_ros/sim/tabletop/policy

The number of updates depends on the machine's speed, and GPU sums are not bit-stable: a second run gives another policy
of the same quality, not the same file.

| round | updates | loss | expert / policy samples | success in new data | check of the round before: base, 200 ms old |
| --- | --- | --- | --- | --- | --- |
{rounds}

## Closed-loop success
{episodes} unseen episodes per row (seeds 500000...), colour, light and camera jitter on, bf16-rounded weights run in fp32 PyTorch
by `python tools/evaluate.py flashrt_ros/sim/tabletop/policy --episodes {episodes} --settings all`, 10 Euler steps, a new chunk every
5 steps unless said otherwise. `delay_n`: a chunk takes over n steps (n x 50 ms) after its observation, its first n actions
skipped. Measured on the training machine's CPU.

| setting | success | rate | Wilson 95 % | mean steps |
| --- | --- | --- | --- | --- |
{table}

`wrong_colour` names another block than the one that is judged; `zero_state` feeds a state of zeros. Without the agent view
the wrist camera alone still finds most blocks.

## Notes
* The hand's axis-angle (state dims 3-5) is constant; its statistics carry q01 = c - 1 and q99 = c + 0.992 so that the range
  is not empty and the value falls in the middle of bin 128. The rotation actions and the gripper use -1..1.
* Trained on ray-cast images only. The scene is a toy: this policy is for demonstrations and tests.
* Licence: Apache-2.0, as the repository.
"""


def card(metrics: dict, size_vocab: int) -> str:
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
    return CARD.format(
        parameters=metrics["parameters"], vocab=size_vocab, expert_episodes=metrics["episodes"]["expert"],
        policy_episodes=metrics["episodes"]["policy"], expert_samples=metrics["samples"]["expert"],
        policy_samples=metrics["samples"]["policy"], first_seed=o["seed"] * 100_000, updates=metrics["updates"],
        batch=o["batch"], draws=o["draws"], lr=o["lr"], weight_decay=o["weight_decay"], ema=o["ema"],
        seconds=metrics["seconds"], minutes=o["minutes"], command=f"python tools/train.py --out data/run {flags}",
        rounds="\n".join(rounds), episodes=o["eval_episodes"], table="\n".join(table),
    )  # fmt: skip


def export(run: Path, out: Path) -> int:
    """Writes the checkpoint folder; returns the size of its weights in bytes."""
    policy = load_policy(run)  # also checks every key and shape
    weights = load_weights(run)
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key}: not finite")
    save_policy(out, weights, policy.model.size, policy.state, policy.actions, policy.tokenizer)
    metrics = json.loads((run / "metrics.json").read_text())
    (out / "README.md").write_text(card(metrics, policy.model.size.vocab_size))
    write_manifest(out)
    size = (out / "model.safetensors").stat().st_size
    if size > LIMIT_BYTES:
        raise ValueError(f"model.safetensors: {size} bytes, limit {LIMIT_BYTES}")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder written by tools/train.py")
    parser.add_argument("--out", type=Path, default=Path("flashrt_ros/sim/tabletop/policy"))
    args = parser.parse_args()
    size = export(args.run, args.out)
    sys.stdout.write(f"{args.out}: {size:,} bytes of weights\n")


if __name__ == "__main__":
    main()
