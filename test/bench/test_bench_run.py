"""Benchmark runs on the host: the columns of a row, real inputs through `predict`, two clocks that cannot be confused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flashrt_core.bench import facts
from flashrt_core.bench.case import KEY, Case, sweep
from flashrt_core.bench.measure import cosine, percentiles, replay_ms, wall_ms
from flashrt_core.bench.random_model import SIZES, RandomCheckpoint, prompt_of
from flashrt_core.bench.run import Effort, run_case
from flashrt_core.bench.tokenizer_file import character_tokenizer
from flashrt_core.core.tokenizer import Tokenizer, load_tokenizer
from flashrt_core.errors import ConfigError

QUICK = Effort(replays=4, warmup=1)
COLUMNS = {*KEY, "replay_ms_p50", "replay_ms_p95", "wall_ms_p50", "nodes", "cosine_fp32", "commit", "date"}


def test_a_row_of_the_host_has_every_column_and_says_what_it_cannot_know() -> None:
    done = run_case(Case("tiny", "fp32", views=1, chunk=4, num_steps=2, capacity=24), "host", QUICK)
    row = json.loads(json.dumps(done.row, allow_nan=False))
    assert row.keys() >= COLUMNS and done.ops == []
    assert (row["views"], row["chunk"], row["num_steps"], row["capacity"], row["prompt_len"]) == (1, 4, 2, 24, 24)
    assert row["replay_ms_p50"] is None and row["nodes"] is None and row["wall_ms_p50"] > 0
    assert row["cosine_fp32"] == 1.0 and row["model"] == "pi05 tiny"


def test_fp8_with_cached_frames_and_camera_pictures() -> None:
    case = Case("tiny", "fp8", num_steps=2, cache_frames=2, image_size=(40, 60), prompt_len=20)
    row = run_case(case, "host", QUICK).row
    assert 0.9 < row["cosine_fp32"] < 1 and row["prompt_len"] == 20 and row["image_size"] == [40, 60]


def test_a_precision_that_the_hardware_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp32 or fp8 on host"):
        run_case(Case("tiny", "bf16"), "host", QUICK)
    with pytest.raises(ConfigError, match="precision"):
        Case("tiny", "int4")
    with pytest.raises(ConfigError, match="did you mean 'full'"):
        Case("ful", "fp32").dims()
    with pytest.raises(ConfigError, match="which fixes them"):
        Case("folder", "fp32", chunk=5, random=False)


def test_one_stage_in_another_precision() -> None:
    cosines = {}
    for precision in ("fp8", "fp8_decoder", "fp32_decoder"):
        row = run_case(Case("tiny", precision, num_steps=1), "host", Effort(replays=1, warmup=1)).row
        cosines[precision] = row["cosine_fp32"]
    assert len(set(cosines.values())) == 3 and max(cosines.values()) < 1, cosines


def test_sweep_changes_one_thing_at_a_time_and_keys_differ() -> None:
    base = Case("full", "fp8")
    cases = sweep(base)
    assert cases[0] == base and len(set(cases)) == len(cases) == 8
    assert [c.views for c in cases].count(2) == 6
    assert all(not ({c.chunk, c.capacity} - {None}) for c in sweep(Case("folder", "fp8", random=False)))


def test_the_full_size_is_the_published_one() -> None:
    dims = Case("full", "fp8").dims()
    assert (dims.vision.num_layers, dims.prefix.width, dims.expert.mlp_dim, dims.vocab_size) == (27, 2048, 4096, 257152)


def test_the_character_tokenizer_is_a_sentencepiece_model_with_one_id_a_character() -> None:
    tokenizer = Tokenizer(character_tokenizer(768))
    assert tokenizer.vocab_size == 768 and tokenizer.bos_id == 2
    assert len(tokenizer.encode("ab c", add_bos=True)) == 5 and tokenizer.encode("\n") == [4]
    for tokens in (2, 3, 48, 200):
        assert len(tokenizer.encode(prompt_of(tokens), add_bos=True)) + 1 == tokens
    with pytest.raises(ValueError, match="the least"):
        character_tokenizer(20)


def test_the_full_vocabulary_is_accepted_as_paligemma_s_size(tmp_path: Path) -> None:
    RandomCheckpoint(tmp_path, SIZES["full"])
    assert load_tokenizer(tmp_path, expected_vocab=257152).vocab_size == 257152


class FakeStream:
    """Machine, graph and events with a clock of their own: a replay takes 2 ms of it, and the host's never moves."""

    stream = 0

    def __init__(self) -> None:
        self.now, self.replays = 0.0, 0
        self.machine = self.graph = self.ctx = self

    def replay(self, variant: int, stream: int) -> int:
        self.now, self.replays = self.now + 2.0, self.replays + 1
        return 0

    def sync(self) -> None: ...

    def event(self):
        outer = self

        class Event:
            def record(self, stream: int) -> None:
                self.at = outer.now

            def ms_since(self, earlier) -> float:
                return self.at - earlier.at

        return Event()


def test_replay_is_on_the_device_s_clock_after_the_warm_up() -> None:
    fake = FakeStream()
    assert replay_ms(fake, 0, 5, 3) == [2.0] * 5 and fake.replays == 8


def test_wall_is_on_the_host_s_clock_and_every_call_differs() -> None:
    now, seen = [0.0], []

    def call(i: int) -> None:
        seen.append(i)
        now[0] += 0.001 * (i + 1)

    assert wall_ms(call, 3, 2, clock=lambda: now[0]) == pytest.approx([3, 4, 5]) and seen == [0, 1, 2, 3, 4]
    assert percentiles([1.0, 2.0, 3.0])["p50"] == 2.0
    assert cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(0.5**0.5)


def test_commit_is_read_from_git_s_files(tmp_path: Path) -> None:
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("0123456789abcdef" * 2 + "01234567\n")
    assert facts.commit(tmp_path / "a" / "b.py") == "0123456"
    (tmp_path / ".git" / "refs" / "heads" / "main").unlink()
    assert facts.commit(tmp_path / "b.py") == "?"
    (tmp_path / ".git" / "packed-refs").write_text("# pack\n" + "f" * 40 + " refs/heads/main\n")
    assert facts.commit(tmp_path / "b.py") == "fffffff"
    worktree = tmp_path / "w"
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {tmp_path / '.git'}\n")
    assert facts.commit(worktree / "b.py") == "fffffff"
    assert facts.commit(Path("/nowhere/b.py")) == "?"
