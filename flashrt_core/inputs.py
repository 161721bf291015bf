"""Rules for input from outside that the packages above the core share: prompts, YAML, how a picture is fitted into a square."""

from __future__ import annotations

from .core.strict_yaml import MAX_YAML, parse_yaml, read_yaml
from .models.pi05.prompt import MAX_PROMPT_BYTES, clean_prompt
from .ops.resample import WEIGHT_BITS, bilinear_taps, fitted_size

__all__ = [
    "MAX_PROMPT_BYTES", "MAX_YAML", "WEIGHT_BITS", "bilinear_taps", "clean_prompt", "fitted_size", "parse_yaml", "read_yaml",
]  # fmt: skip
