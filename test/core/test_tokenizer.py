"""Where the tokenizer is looked for, and that it encodes."""

from __future__ import annotations

import pytest
import sentencepiece
from support.checkpoints import TINY, tokenizer_bytes, write_checkpoint

from flashrt_core.core import tokenizer as module
from flashrt_core.core.tokenizer import IN_FOLDER, IN_HOME, Tokenizer, load_tokenizer
from flashrt_core.errors import CheckpointError, CheckpointNotFound

ROWS = TINY.vocab_size


def test_encodes_like_sentencepiece():
    model = tokenizer_bytes()
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = Tokenizer(model)
    for text in ("Task: move the red block, State: 1 255 0;\nAction: ", "\n", "", "é☃ unseen", "  two  spaces"):
        assert ours.encode(text) == reference.encode(text)
        assert ours.encode(text, add_bos=True) == [2, *reference.encode(text)]
    assert ours.bos_id == 2 and ours.vocab_size == 400
    assert len(ours.encode("\n")) == 1  # the separator that openpi appends when there is no state


def test_order_in_the_folder(tmp_path):
    folder = write_checkpoint(tmp_path, tokenizer=False)
    (folder / "assets").mkdir(exist_ok=True)
    for relative in reversed(IN_FOLDER):
        (folder / relative).write_bytes(tokenizer_bytes())
        assert load_tokenizer(folder, expected_vocab=ROWS).path == str(folder / relative)
    other = tmp_path / "other.model"
    other.write_bytes(tokenizer_bytes(128))
    assert load_tokenizer(folder, expected_vocab=ROWS, path=other).vocab_size < 400


def test_caches_are_for_the_full_model_only(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "ckpt", tokenizer=False)
    for relative in IN_HOME:
        (tmp_path / relative).parent.mkdir(parents=True)
        (tmp_path / relative).write_bytes(tokenizer_bytes())
    with pytest.raises(CheckpointNotFound) as caught:
        load_tokenizer(folder, expected_vocab=ROWS, home=tmp_path)
    assert ".cache" not in str(caught.value)
    monkeypatch.setattr(module, "GEMMA_PIECES", 400)
    assert load_tokenizer(folder, expected_vocab=257_152, home=tmp_path).path == str(tmp_path / IN_HOME[0])


def test_explicit_path_is_used_or_refused(tmp_path):
    folder = write_checkpoint(tmp_path)
    with pytest.raises(CheckpointNotFound, match=r"absent\.model"):
        load_tokenizer(folder, expected_vocab=ROWS, path=tmp_path / "absent.model")
    with pytest.raises(CheckpointError, match="SentencePiece"):
        load_tokenizer(folder, expected_vocab=ROWS, path=tmp_path / "tokenizer.json")


def test_file_over_64_mib(tmp_path):
    with (tmp_path / "t.model").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(CheckpointError, match="at most 67108864 bytes"):
        load_tokenizer(tmp_path, expected_vocab=ROWS, path=tmp_path / "t.model")


def test_model_without_begin_of_sentence(tmp_path):
    import io

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["red block", "blue zone"] * 5), model_writer=out, vocab_size=20, hard_vocab_limit=False,
        model_type="char", bos_id=-1, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="begin-of-sentence"):
        Tokenizer(out.getvalue())
