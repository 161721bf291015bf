"""Rules for text from outside that the packages above the core share: what a prompt may be, how YAML is read."""

from __future__ import annotations

from .core.strict_yaml import MAX_YAML, parse_yaml, read_yaml
from .models.pi05.prompt import MAX_PROMPT_BYTES, clean_prompt

__all__ = ["MAX_PROMPT_BYTES", "MAX_YAML", "clean_prompt", "parse_yaml", "read_yaml"]
