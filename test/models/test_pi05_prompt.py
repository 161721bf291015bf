"""Prompt text, state bins and token rules of Pi0.5 against the published expressions."""

from __future__ import annotations

import numpy as np
import pytest

from flashrt_core.errors import ObservationError
from flashrt_core.models.pi05.prompt import clean_prompt, discretize_state, format_prompt, tokenize


class Words:
    """A stand-in tokenizer with one token per character, so that expected ids can be written down."""

    def encode(self, text: str, add_bos: bool = False) -> list[int]:
        return [2] * add_bos + [ord(c) for c in text]


def test_exact_text_with_and_without_state() -> None:
    state = np.array([-1.5, -1.0, 0.0, 0.999, 1.0, 3.0])
    assert (
        format_prompt(" pick_up the\nblock ", state)
        == "Task: pick up the block, State: -1 0 128 255 255 255;\nAction: "
    )
    assert format_prompt(" pick_up the\nblock ", None) == "pick up the block"


def test_bins_are_the_published_expression() -> None:
    x = np.random.default_rng(0).uniform(-1.2, 1.2, 10_000).astype(np.float32)
    want = np.digitize(x, np.linspace(-1, 1, 257)[:-1]) - 1
    assert np.array_equal(discretize_state(x), want)
    assert want.min() == -1 and want.max() == 255


def test_tokens_without_state_end_with_a_newline_piece() -> None:
    assert tokenize("ab", None, Words(), 4) == [2, ord("a"), ord("b"), ord("\n")]
    text = "Task: ab, State: 128;\nAction: "
    assert tokenize("ab", np.zeros(1), Words(), 64) == [2, *map(ord, text)]


def test_a_prompt_is_never_truncated() -> None:
    with pytest.raises(ObservationError, match="at most 3 tokens, found 4 tokens"):
        tokenize("ab", None, Words(), 3)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"), ("  \n ", "empty"), ("_", "empty"), ("x" * 4097, "4096 bytes, found 4097"), ("x" * 1_000_000, "1000000"),
        ("a\0b", r"U\+0000"), ("a\x1b[31m", r"U\+001B"), ("a\tb", r"U\+0009"), ("\x85", r"U\+0085"), ("\ud800", r"U\+D800"),
        (None, "a string"), (b"pick", "a string"),
    ],
    ids=repr,
)  # fmt: skip
def test_F86_bad_prompts_are_refused(prompt, words: str) -> None:
    with pytest.raises(ObservationError, match=words) as e:
        clean_prompt(prompt)
    assert len(str(e.value)) < 200, "the error does not repeat the prompt"


def test_text_beyond_ascii_is_a_prompt() -> None:
    assert clean_prompt("nimm den grünen Würfel 🟩") == "nimm den grünen Würfel 🟩"
