"""The prompt as tokens: trains the SentencePiece model, discretises the state, and tabulates prompts for fast training."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import sentencepiece as spm

from flashrt_ros.sim.tabletop import all_prompts

BINS = np.linspace(-1, 1, 257)[:-1]
NUMBERS = range(-1, 256)  # what np.digitize(x, BINS) - 1 can give
_SPACE = "\u2581"  # SentencePiece's mark for a space
_VERBS = (
    "pick up",
    "put",
    "place",
    "move",
    "lift",
    "grab",
    "push",
    "pull",
    "open",
    "close",
    "turn",
    "stack",
    "take",
    "bring",
)
_THINGS = ("block", "cube", "zone", "cup", "bowl", "drawer", "box", "ball", "plate", "bottle", "table", "tray", "spoon")
_COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple", "brown", "grey")
_PLACES = (
    "on the {}",
    "to the {}",
    "into the {}",
    "next to the {}",
    "under the {}",
    "from the {}",
    "and lift it",
    "with the left hand",
)


def prompt_text(prompt: str, bins: Sequence[int]) -> str:
    """openpi's prompt with state (models/tokenizer.py): cleaned task, the numbers, and the call for actions."""
    clean = prompt.strip().replace("_", " ").replace("\n", " ")
    return f"Task: {clean}, State: {' '.join(str(int(b)) for b in bins)};\nAction: "


def state_bins(state: np.ndarray, q01: np.ndarray, q99: np.ndarray) -> np.ndarray:
    """Raw state [..., D] -> int64 bins in -1..255: quantile-normalised, then openpi's np.digitize expression."""
    norm = (np.asarray(state, np.float32) - q01) / (q99 - q01 + 1e-6) * 2 - 1
    return np.digitize(norm, BINS) - 1


def _corpus() -> list[str]:
    """Sentences of a table robot, all of the task's own among them."""
    lines = list(all_prompts()) * 4
    for verb in _VERBS:
        for i, thing in enumerate(_THINGS):
            colour = _COLOURS[(i + len(verb)) % len(_COLOURS)]
            for j, place in enumerate(_PLACES):
                lines.append(f"{verb} the {colour} {thing} {place.format(_THINGS[(i + j + 3) % len(_THINGS)])}")
    return [f"Task: {line}, State: ;\nAction: ".replace("\n", " ") for line in lines]


def train_tokenizer(vocab_size: int = 768) -> bytes:
    """A SentencePiece BPE model as bytes: text unchanged, every number of the state one piece, bytes as a fallback."""
    words = [f"{_SPACE}{n}" for n in NUMBERS]
    frame = ["Task:", f"{_SPACE}State:", ";\n", "\n", "Action:", ","]
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=frame + words,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


class PromptTable:
    """Token rows of known prompts with a hole for the state's numbers; equals the tokenizer's own answer (checked)."""

    def __init__(self, model: bytes, capacity: int, state_dim: int = 8, prompts: Sequence[str] | None = None):
        self.spm = spm.SentencePieceProcessor(model_proto=model)
        self.capacity, self.state_dim = capacity, state_dim
        self.prompts = list(all_prompts() if prompts is None else prompts)
        self._row = {p: i for i, p in enumerate(self.prompts)}
        self.number_id = np.array([self.spm.piece_to_id(f"{_SPACE}{n}") for n in NUMBERS])  # [257], index bin + 1
        if (self.number_id == self.spm.unk_id()).any():
            raise ValueError("tokenizer: a state number is not one piece")
        self.rows = np.zeros((len(self.prompts), capacity), np.int64)
        self.hole = np.zeros(len(self.prompts), np.int64)
        self.valid = np.zeros(len(self.prompts), np.int64)
        for i, prompt in enumerate(self.prompts):
            ids = self.encode(prompt, [0] * state_dim)
            first = ids.index(int(self.number_id[1]))
            self.rows[i, : len(ids)], self.hole[i], self.valid[i] = ids, first, len(ids)

    def encode(self, prompt: str, bins: Sequence[int]) -> list[int]:
        """BOS + pieces, by the tokenizer itself."""
        ids = self.spm.encode(prompt_text(prompt, bins), add_bos=True)
        if len(ids) > self.capacity:
            raise ValueError(f"prompt: {len(ids)} tokens, capacity {self.capacity}")
        return ids

    def index(self, prompt: str) -> int:
        return self._row[prompt]

    def fill(self, index: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [B] and bins [B, D] -> tokens int64 [B, capacity] and valid lengths [B]."""
        tokens = self.rows[index].copy()
        at = self.hole[index][:, None] + np.arange(self.state_dim)
        tokens[np.arange(len(index))[:, None], at] = self.number_id[np.asarray(bins) + 1]
        return tokens, self.valid[index]
