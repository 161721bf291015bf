"""Rows F59 and F62 of the fault matrix: bad statistics and tokenizers get one typed error that names the thing."""

from __future__ import annotations

import json

import pytest
from support.checkpoints import TINY, lerobot_stats_tensors, norm_stats_dict, tokenizer_bytes, write_checkpoint

from flashrt_core.core.tokenizer import load_tokenizer
from flashrt_core.core.utils.norm_stats import load_norm_stats
from flashrt_core.errors import CheckpointError, CheckpointNotFound
from flashrt_core.models.pi05.profile import load_profile

# ---- F59


def spoil(stats: dict, what: str) -> dict:
    block = stats["norm_stats"]["state"]
    if what == "missing block":
        del stats["norm_stats"]["actions"]
    elif what == "missing q01":
        del block["q01"]
    elif what == "short":
        block["q99"] = block["q99"][:-1]
    elif what == "long":
        block["q99"] = [*block["q99"], 1.0]
    elif what == "std 0":
        block["std"][2] = 0.0
    elif what == "std negative":
        block["std"][2] = -1.0
    elif what == "q01 = q99":
        block["q01"][3] = block["q99"][3]
    elif what == "q01 > q99":
        block["q01"], block["q99"] = block["q99"], block["q01"]
    elif what == "text":
        block["q01"][0] = "0.5"
    elif what == "nested":
        block["q01"] = [block["q01"]]
    elif what == "ragged":
        block["q01"] = [[1.0], *block["q01"][1:]]
    elif what == "null":
        block["q01"] = None
    return stats


@pytest.mark.parametrize(
    "what",
    ["missing block", "missing q01", "short", "long", "std 0", "std negative", "q01 = q99", "q01 > q99", "text", "nested",
     "ragged", "null"],
)  # fmt: skip
def test_F59_bad_statistics(tmp_path, what):
    folder = write_checkpoint(tmp_path, norm_stats=spoil(norm_stats_dict(0), what))
    with pytest.raises(CheckpointError) as caught:
        load_norm_stats(folder, load_profile(folder))
    assert "norm_stats.json" in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_F59_statistics_that_are_not_finite(tmp_path, word):
    folder = write_checkpoint(tmp_path)
    path = folder / "assets" / "test" / "norm_stats.json"
    stats = json.loads(path.read_text())
    path.write_text(path.read_text().replace(str(stats["norm_stats"]["state"]["q01"][0]), word, 1))
    with pytest.raises(CheckpointError, match="finite"):
        load_norm_stats(folder, load_profile(folder))


def test_F59_statistics_that_are_not_finite_in_a_lerobot_processor(tmp_path):
    from safetensors.torch import save_file

    folder = write_checkpoint(tmp_path, layout="lerobot")
    before, _ = lerobot_stats_tensors(norm_stats_dict(0))
    before["observation.state.q99"][4] = float("nan")
    save_file(before, next(folder.glob("policy_preprocessor_step_*")))
    with pytest.raises(CheckpointError, match=r"q99\[4\]"):
        load_norm_stats(folder, load_profile(folder))


@pytest.mark.parametrize("layout", ["openpi", "lerobot"])
def test_F59_missing_statistics_are_not_replaced_by_identity(tmp_path, layout):
    folder = write_checkpoint(tmp_path, layout=layout, norm_stats=False)
    with pytest.raises(CheckpointNotFound) as caught:
        load_norm_stats(folder, load_profile(folder))
    for part in ("norm_stats.json", "policy_preprocessor", "policy_postprocessor", "stats.json"):
        assert part in str(caught.value)


# ---- F62


def test_F62_missing_tokenizer_says_what_to_fetch(tmp_path):
    folder = write_checkpoint(tmp_path, tokenizer=False)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointNotFound) as caught:
        load_tokenizer(folder, expected_vocab=257_152, home=tmp_path)
    text = str(caught.value)
    assert (
        "paligemma_tokenizer.model" in text
        and "https://" in text
        and ".cache/openpi" in text
        and "Hugging Face" in text
    )


def test_F62_vocabulary_larger_than_the_embedding(tmp_path):
    folder = write_checkpoint(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(folder, expected_vocab=399)
    assert "399" in caught.value.expected and "400 pieces" in caught.value.found
    assert load_tokenizer(folder, expected_vocab=400).vocab_size == 400


def test_F62_small_vocabulary_for_the_full_model(tmp_path):
    folder = write_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"256000\.\.257152"):
        load_tokenizer(folder, expected_vocab=257_152)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04]\x94.", tokenizer_bytes()[:700]])
def test_F62_corrupt_tokenizer(tmp_path, content):
    folder = write_checkpoint(tmp_path)
    (folder / "paligemma_tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match="SentencePiece"):
        load_tokenizer(folder, expected_vocab=TINY.vocab_size)
