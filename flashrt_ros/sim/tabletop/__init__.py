"""The bundled task: a hand, three blocks and a yellow zone, and the small trained Pi0.5 that acts in it."""

from __future__ import annotations

from pathlib import Path

from .prompts import COLOURS, Task, all_prompts, parse_prompt
from .task import TabletopEnv

POLICY_DIR = Path(__file__).with_name("policy")  # the bundled checkpoint folder

__all__ = ["COLOURS", "POLICY_DIR", "TabletopEnv", "Task", "all_prompts", "parse_prompt"]
