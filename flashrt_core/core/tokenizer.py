"""The SentencePiece tokenizer of a PaliGemma-based checkpoint: found in a documented order, checked, wrapped."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFound
from .paths import confined
from .strict_json import read_capped

URL = "https://storage.googleapis.com/big_vision/paligemma_tokenizer.model"
IN_FOLDER = (
    "paligemma_tokenizer.model",
    "tokenizer.model",
    "assets/paligemma_tokenizer.model",
    "assets/tokenizer.model",
)
IN_HOME = (".cache/openpi/big_vision/paligemma_tokenizer.model", ".cache/flashrt/paligemma_tokenizer.model")
PALIGEMMA_ROWS = 257_152  # embedding rows: Gemma's 256,000 pieces, then 1,024 <loc> and 128 <seg>
GEMMA_PIECES = 256_000
_MAX_BYTES = 64 << 20


class Tokenizer:
    """`encode(text)` to piece ids, `bos_id`, `vocab_size` (number of pieces), `path` (for the record)."""

    def __init__(self, model: bytes, name: str = "tokenizer.model"):
        """model: the content of a SentencePiece .model file. CheckpointError when it is not one."""
        import sentencepiece

        self.path = name
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = bool(model) and self._processor.LoadFromSerializedProto(model)
            self.vocab_size = self._processor.get_piece_size() if loaded else 0
        except RuntimeError:  # what the library raises for a proto that it cannot parse
            self.vocab_size = 0
        if self.vocab_size < 1:
            raise CheckpointError(Path(name).name, expected="a SentencePiece model", found=f"{len(model)} other bytes")
        self.bos_id = self._processor.bos_id()
        if not 0 <= self.bos_id < self.vocab_size:
            raise CheckpointError(Path(name).name, expected="a begin-of-sentence piece", found=f"id {self.bos_id}")

    def encode(self, text: str, add_bos: bool = False) -> list[int]:
        """Piece ids of `text`, with `bos_id` in front on request."""
        ids = list(self._processor.encode(text))
        return [self.bos_id, *ids] if add_bos else ids


def load_tokenizer(
    checkpoint_dir: str | Path, *, expected_vocab: int, path: str | Path | None = None, home: Path | None = None
) -> Tokenizer:
    """The tokenizer of a checkpoint whose embedding has `expected_vocab` rows.

    Order: `path`; in the folder `paligemma_tokenizer.model`, `tokenizer.model`, the same two in `assets/`; then
    `~/.cache/openpi/big_vision/` and `~/.cache/flashrt/paligemma_tokenizer.model`. The first that exists is used or
    refused. Every piece must have an embedding row (pieces <= rows). The caches hold PaliGemma's tokenizer, which the
    full model was trained with: 257,152 rows need 256,000 pieces or more, and a smaller model never looks there.
    home: the user's home directory, for tests. Raises CheckpointNotFound with where it looked and what to fetch.
    """
    folder = Path(checkpoint_dir)
    if path is not None:
        file = Path(path).expanduser()
        if file.name.endswith(".json"):
            raise CheckpointError(file.name, expected="a SentencePiece .model file", found="JSON", hint=_hint())
        return _load(file, expected_vocab)
    looked = []
    for relative in IN_FOLDER:
        file = confined(folder, relative)
        looked.append(f"{folder.name}/{relative}")
        if file.exists():
            return _load(file, expected_vocab)
    if expected_vocab >= PALIGEMMA_ROWS:
        for relative in IN_HOME:
            looked.append(f"~/{relative}")
            file = (home or Path.home()) / relative
            if file.exists():
                return _load(file, expected_vocab)
    found = "nothing"
    if (folder / "tokenizer.json").exists():
        found = "tokenizer.json alone, the Hugging Face format, which is not read"
    raise CheckpointNotFound("tokenizer", expected=f"one of {', '.join(looked)}", found=found, hint=_hint())


def _load(file: Path, expected_vocab: int) -> Tokenizer:
    model = read_capped(file, _MAX_BYTES)
    if len(model) > _MAX_BYTES:
        raise CheckpointError(file.name, expected=f"at most {_MAX_BYTES} bytes", found="more")
    tokenizer = Tokenizer(model, str(file))
    least = GEMMA_PIECES if expected_vocab >= PALIGEMMA_ROWS else 1
    if not least <= tokenizer.vocab_size <= expected_vocab:
        raise CheckpointError(
            f"{file.name}: vocabulary",
            expected=f"{least}..{expected_vocab} pieces (the embedding has {expected_vocab} rows)",
            found=f"{tokenizer.vocab_size} pieces",
            hint="It belongs to another model." if tokenizer.vocab_size > expected_vocab else _hint(),
        )
    return tokenizer


def _hint() -> str:
    return f"PaliGemma's is at {URL}: put it into the checkpoint folder, or pass its path."
