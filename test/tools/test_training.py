"""The training tools at toy size: data, tokenizer, three updates on the CPU, export, and what the exported file holds."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import evaluate
import export
from learner import Learner, Samples
from make_data import EVAL_SEED, Job, make_jobs, run_job
from pi05_model import ModelSize, Pi05
from policy_io import Stats, load_policy, load_weights, save_policy, size_from_profile
from prompt_tokens import NUMBERS, PromptTable, prompt_text, state_bins, train_tokenizer
from rollout import Drive, run_policy

from flashrt_ros.sim.tabletop import POLICY_DIR, TabletopEnv, all_prompts

TINY = ModelSize(
    vocab_size=768, prompt_capacity=32, vision_width=32, vision_mlp=32, vision_layers=1, prefix_width=32, prefix_mlp=32,
    expert_width=32, expert_mlp=32, layers=2, heads=2, head_dim=16,
)  # fmt: skip
PAL = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert.model."


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> bytes:
    return train_tokenizer()


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "a.npz"
    run_job(Job(first=0, count=2, out=str(out)))
    return out


# -- data -------------------------------------------------------------------------------------------------------------


def test_expert_shard(shard, tmp_path):
    with np.load(shard, allow_pickle=False) as z:
        n = len(z["state"])
        assert n > 20
        assert z["images"].shape == (n, 2, 112, 112, 3) and z["images"].dtype == np.uint8
        assert z["chunk"].shape == (n, 10, 7) and np.abs(z["chunk"]).max() <= 1
        assert set(z["prompt"]) <= set(range(len(all_prompts())))
        again = tmp_path / "b.npz"
        run_job(Job(first=0, count=2, out=str(again)))
        with np.load(again, allow_pickle=False) as y:
            for key in z:
                np.testing.assert_array_equal(z[key], y[key])


def test_training_seeds_never_reach_the_evaluation(tmp_path):
    with pytest.raises(ValueError, match="evaluation seeds"):
        make_jobs(tmp_path, episodes=10, seed=EVAL_SEED - 5)
    jobs = make_jobs(tmp_path, episodes=7, seed=3, shard=5)
    assert [(j.first, j.count) for j in jobs] == [(3, 5), (8, 2)]


# -- prompt -----------------------------------------------------------------------------------------------------------


def test_tokenizer_is_reproducible_and_loses_no_text(tokenizer):
    assert train_tokenizer() == tokenizer
    table = PromptTable(tokenizer, 48)
    spm = table.spm
    assert (spm.pad_id(), spm.eos_id(), spm.bos_id(), spm.unk_id()) == (0, 1, 2, 3)
    for text in (" two  spaces ", "caf\u00e9 \u2713\t42", "\n", prompt_text("stack\n the_red cup!", [0, -1, 255])):
        ids = spm.encode(text)
        assert spm.decode(ids) == text and 3 not in ids
    assert len(spm.encode("\n")) == 1
    assert len(set(table.number_id)) == 257
    for n in NUMBERS:
        assert spm.encode(f" {n}") == [table.number_id[n + 1]]


def test_prompt_table_equals_the_tokenizer(tokenizer):
    table, rng = PromptTable(tokenizer, 48), np.random.default_rng(0)
    index, bins = rng.integers(0, 18, 200), rng.integers(-1, 256, (200, 8))
    tokens, valid = table.fill(index, bins)
    for i in range(200):
        ids = table.encode(table.prompts[index[i]], bins[i])
        assert tokens[i, : valid[i]].tolist() == ids and not tokens[i, valid[i] :].any()
    assert valid.max() <= 24  # half of the capacity is left for other sentences
    with pytest.raises(ValueError, match="capacity 48"):
        table.encode("x " * 60, bins[0])


def test_prompt_text_and_bins_are_openpis():
    assert prompt_text(" pick_up\nit ", [3, -1]) == "Task: pick up it, State: 3 -1;\nAction: "
    q01, q99 = np.float32([-1.0]), np.float32([1.0])
    for x, expected in [(-1.5, -1), (-0.9999, 0), (0.002, 128), (0.9999, 255), (4.0, 255)]:
        assert state_bins(np.float32([x]), q01, q99)[0] == expected


def test_statistics_of_a_constant_dim_are_usable():
    rows = np.stack([np.linspace(-1, 1, 101), np.full(101, np.pi)], 1)
    stats = Stats.of(rows)
    assert (stats.q99 > stats.q01).all() and np.isfinite(stats.std).all()
    assert state_bins(rows[:1].astype(np.float32), stats.q01, stats.q99)[0, 1] == 128
    near = state_bins(np.float32([[0, np.pi + 2e-3], [0, np.pi - 2e-3]]), stats.q01, stats.q99)[:, 1]
    assert (near == 128).all()  # mid-bin: rounding cannot flip it
    np.testing.assert_allclose(stats.unscale(stats.scale(rows)), rows, atol=1e-5)
    assert Stats.from_json(stats.to_json()).q99[0] == stats.q99[0]


# -- model ------------------------------------------------------------------------------------------------------------


def batch(size: ModelSize, n: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 2, 112, 112, 3), dtype=torch.uint8, generator=g)
    tokens = torch.randint(4, size.vocab_size, (n, size.prompt_capacity), generator=g)
    return images, tokens, torch.tensor([9, 17][:n]), torch.randn(n, 10, 32, generator=g)


def test_padding_behind_the_prompt_changes_nothing():
    torch.manual_seed(0)
    model = Pi05(TINY).eval()
    images, tokens, valid, noise = batch(TINY)
    out = model.sample(images, tokens, valid, noise)
    other = tokens.clone()
    other[0, 9:], other[1, 17:] = 0, 5
    torch.testing.assert_close(model.sample(images, other, valid, noise), out)
    other[1, 16] = 6  # a valid one does
    assert (model.sample(images, other, valid, noise)[1] - out[1]).abs().max() > 1e-6


def test_draws_share_a_prefix_and_do_not_see_each_other():
    torch.manual_seed(0)
    model = Pi05(TINY).eval()
    images, tokens, valid, _ = batch(TINY)
    x, t = torch.randn(2, 3, 10, 32), torch.tensor([[0.1, 0.5, 1.0], [0.9, 0.2, 0.4]])
    with torch.no_grad():
        prefix = model.prefix(images, tokens, valid)
        together = model.velocity(x, t, prefix)
        for k in range(3):
            torch.testing.assert_close(model.velocity(x[:, k : k + 1], t[:, k : k + 1], prefix)[:, 0], together[:, k])


def test_padded_action_dims_keep_their_noise():
    torch.manual_seed(0)
    model = Pi05(TINY).eval()
    images, tokens, valid, noise = batch(TINY)
    out = model.sample(images, tokens, valid, noise)
    torch.testing.assert_close(out[..., 7:], noise[..., 7:])
    noise[..., 7:] = 0
    torch.testing.assert_close(model.sample(images, tokens, valid, noise)[..., :7], out[..., :7])


# -- training and export ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(shard, tokenizer, tmp_path_factory) -> tuple[Path, Learner, list[float]]:
    """A folder as tools/train.py leaves it, after a few updates of a tiny model."""
    out = tmp_path_factory.mktemp("run")
    samples = Samples(torch.device("cpu"))
    samples.add(shard, "expert")
    states, chunks = samples.arrays("expert")
    state, actions = Stats.of(states), Stats.of(chunks.reshape(-1, 7))
    table = PromptTable(tokenizer, TINY.prompt_capacity)
    learner = Learner(TINY, table, state, actions, torch.device("cpu"), lr=3e-3, draws=2, ema=0.5, seed=1)
    fixed = samples.draw(8, "expert", np.random.default_rng(0))
    losses = [learner.step(fixed, 1.0).item() for _ in range(12)]
    save_policy(out, learner.weights(), TINY, state, actions, tokenizer)
    row = {"episodes": 2, "successes": 1, "rate": 0.5, "wilson95": [0.1, 0.9], "mean_steps": 3.0, "failed_seeds": []}
    options = {"seed": 0, "minutes": 1, "episodes": 2, "rounds": 1, "round_episodes": 2, "round_steps": 3, "workers": 1,
               "device": "cpu", "compile": False, "batch": 8, "draws": 2, "lr": 1e-3, "weight_decay": 0.0, "ema": 0.5,
               "eval_episodes": 2}  # fmt: skip
    first = {
        "round": 0,
        "updates": 12,
        "loss": losses[-1],
        "expert_samples": 30,
        "policy_samples": 0,
        "data_success": [2, 2],
    }
    metrics = {"options": options, "rounds": [first], "updates": 12, "episodes": {"expert": 2, "policy": 0},
               "samples": {"expert": 30, "policy": 0}, "evaluation": {"base": row}, "parameters": 1, "seconds": 1.0}  # fmt: skip
    (out / "metrics.json").write_text(json.dumps(metrics))
    return out, learner, losses


def test_learner_tokens_equal_the_prompt_table(trained):
    _, learner, _ = trained
    state = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.3, (64, 8)).astype(np.float32))
    q01, q99 = (t.numpy() for t in learner._state)
    table = PromptTable(train_tokenizer(), TINY.prompt_capacity)
    index = np.arange(64) % 18
    tokens, valid = learner.tokens(torch.from_numpy(index), state)
    expected, n = table.fill(index, state_bins(state.numpy(), q01, q99))
    np.testing.assert_array_equal(tokens.numpy(), expected)
    np.testing.assert_array_equal(valid.numpy(), n)


def test_updates_reduce_the_loss(trained):
    _, learner, losses = trained
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    live = learner.model.action_in_proj.weight
    assert not live[:, 7:].any() and live[:, :7].any()  # padded dims stay out of it


def test_export_round_trip(trained, tmp_path):
    run, learner, _ = trained
    out = tmp_path / "policy"
    export.export(run, out, ["a further line"])
    weights, kept = load_weights(out), learner.weights()
    assert set(weights) == set(kept)
    for key, value in weights.items():
        torch.testing.assert_close(value, kept[key].bfloat16().float(), rtol=0, atol=0)
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    assert set(manifest) == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} - {"manifest.json"}
    for name, entry in manifest.items():
        data = (out / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    text = (out / "README.md").read_text()
    assert "1/2" in text and "Apache-2.0" in text and "a further line" in text and "{" not in text
    policy = load_policy(out)
    assert size_from_profile(json.loads((out / "flashrt_profile.json").read_text())) == TINY
    env = TabletopEnv()
    chunk = policy(env.observe(), env.prompt, 0)
    assert chunk.shape == (10, 7) and np.isfinite(chunk).all()
    np.testing.assert_array_equal(chunk, policy(env.observe(), env.prompt, 0))


def test_export_refuses_weights_that_are_not_finite(trained, tmp_path):
    run, learner, _ = trained
    bad = tmp_path / "bad"
    weights = {k: v.clone() for k, v in learner.weights().items()}
    weights["time_mlp_in.bias"][0] = float("nan")
    policy = load_policy(run)
    save_policy(bad, weights, TINY, policy.state, policy.actions, policy.tokenizer)
    with pytest.raises(ValueError, match=r"time_mlp_in\.bias"):
        export.export(bad, tmp_path / "out", [])


def expected_shapes(s: ModelSize) -> dict[str, tuple[int, ...]]:
    """Key names and shapes of openpi's PyTorch layout at a given size, without the expert's unused lm_head."""
    shapes: dict[str, tuple[int, ...]] = {PAL + "lm_head.weight": (s.vocab_size, s.prefix_width)}
    v, w, q = PAL + "model.vision_tower.vision_model.", s.vision_width, s.heads * s.head_dim

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        shapes[name + ".weight"] = (out, into)
        if bias:
            shapes[name + ".bias"] = (out,)

    def layer_norm(name: str) -> None:
        shapes[name + ".weight"] = shapes[name + ".bias"] = (w,)

    shapes[v + "embeddings.patch_embedding.weight"] = (w, 3, s.patch_size, s.patch_size)
    shapes[v + "embeddings.patch_embedding.bias"] = (w,)
    shapes[v + "embeddings.position_embedding.weight"] = ((s.image_size // s.patch_size) ** 2, w)
    for i in range(s.vision_layers):
        layer = f"{v}encoder.layers.{i}."
        layer_norm(layer + "layer_norm1")
        layer_norm(layer + "layer_norm2")
        for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(layer + "self_attn." + p, w, w)
        linear(layer + "mlp.fc1", s.vision_mlp, w)
        linear(layer + "mlp.fc2", w, s.vision_mlp)
    layer_norm(v + "post_layernorm")
    linear(PAL + "model.multi_modal_projector.linear", s.prefix_width, w)
    for stack, width, hidden in (
        (PAL + "model.language_model.", s.prefix_width, s.prefix_mlp),
        (EXPERT, s.expert_width, s.expert_mlp),
    ):
        for i in range(s.layers):
            layer = f"{stack}layers.{i}."
            linear(layer + "self_attn.q_proj", q, width, False)
            linear(layer + "self_attn.k_proj", s.head_dim, width, False)
            linear(layer + "self_attn.v_proj", s.head_dim, width, False)
            linear(layer + "self_attn.o_proj", width, q, False)
            linear(layer + "mlp.gate_proj", hidden, width, False)
            linear(layer + "mlp.up_proj", hidden, width, False)
            linear(layer + "mlp.down_proj", width, hidden, False)
        norms = [f"layers.{i}.{n}" for i in range(s.layers) for n in ("input_layernorm", "post_attention_layernorm")]
        for name in [*norms, "norm"]:
            if stack == EXPERT:
                linear(f"{stack}{name}.dense", 3 * width, width)
            else:
                shapes[f"{stack}{name}.weight"] = (width,)
    e = s.expert_width
    linear("action_in_proj", e, s.action_dim)
    linear("action_out_proj", s.action_dim, e)
    linear("time_mlp_in", e, e)
    linear("time_mlp_out", e, e)
    return shapes


@pytest.mark.parametrize("folder", ["toy", "bundled"])
def test_exported_keys_and_shapes_are_openpis(trained, folder):
    path = trained[0] if folder == "toy" else POLICY_DIR
    size = size_from_profile(json.loads((path / "flashrt_profile.json").read_text()))
    found = {k: tuple(v.shape) for k, v in load_weights(path).items()}
    assert found == expected_shapes(size)


# -- the bundled policy ------------------------------------------------------------------------------------------------


def test_bundled_folder_is_what_its_manifest_says():
    manifest = json.loads((POLICY_DIR / "manifest.json").read_text())["files"]
    for name, entry in manifest.items():
        assert hashlib.sha256((POLICY_DIR / name).read_bytes()).hexdigest() == entry["sha256"], name
    assert manifest["model.safetensors"]["bytes"] < 12_000_000
    size = size_from_profile(json.loads((POLICY_DIR / "flashrt_profile.json").read_text()))
    for width in (size.vision_width, size.prefix_width, size.expert_width, size.prefix_mlp, size.vocab_size):
        assert width % 16 == 0


def test_bundled_policy_acts_and_listens():
    """Four episodes with the true prompt, two of them with another block's name (PyTorch, no engine)."""
    seeds = list(range(EVAL_SEED, EVAL_SEED + 4))
    good = evaluate.run_eval(str(POLICY_DIR), "base", seeds, 5)
    assert sum(ok for _, ok, _ in good) >= 3, good
    assert not any(ok for _, ok, _ in evaluate.run_eval(str(POLICY_DIR), "wrong_colour", seeds[:2], 5))


def test_late_chunks_are_aligned_by_their_age():
    """With a delay of d, the action executed at step s is chunk[s - step of its observation]."""
    env, asked = TabletopEnv(), []

    def policy(observation, prompt, seed):
        asked.append(env.steps)
        chunk = np.zeros((10, 7), np.float32)
        chunk[:, 0] = np.arange(10) / 20 + 0.01  # says its own index
        return chunk

    ran = []
    step = env.step
    env.step = lambda action: (ran.append(float(action[0])), step(action))[1]
    run_policy(env, policy, 3, Drive(replan=5, delay=2))
    assert asked[:3] == [0, 5, 10]
    np.testing.assert_allclose(ran[:2], 0)  # nothing to execute yet
    index = [2, 3, 4, 5, 6, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(ran[2:12], np.array(index) / 20 + 0.01, atol=1e-6)


def test_wilson_interval():
    low, high = evaluate.wilson(198, 200)
    assert round(low, 3) == 0.964 and round(high, 3) == 0.997
