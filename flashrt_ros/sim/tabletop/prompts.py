"""The sentences that name a task: two families, three colours, a few wordings each."""

from __future__ import annotations

from dataclasses import dataclass

from flashrt_core.errors import ConfigError

COLOURS = ("red", "green", "blue")
# The first wording of a family is the one that is drawn most often.
WORDINGS = {
    "pick": ("pick up the {} block", "lift the {} block", "grab the {} cube and lift it"),
    "place": (
        "put the {} block on the yellow zone",
        "place the {} block on the yellow zone",
        "move the {} cube to the yellow zone",
    ),
}


@dataclass(frozen=True)
class Task:
    """family: 'pick' or 'place'; colour: the named block."""

    family: str
    colour: str


_BY_PROMPT = {
    wording.format(colour): Task(family, colour)
    for family, wordings in WORDINGS.items()
    for wording in wordings
    for colour in COLOURS
}


def all_prompts() -> list[str]:
    """Every sentence the task can ask for."""
    return list(_BY_PROMPT)


def parse_prompt(prompt: str) -> Task:
    """The task that a sentence asks for. Raises ConfigError for a sentence that is none of `all_prompts()`."""
    task = _BY_PROMPT.get(" ".join(str(prompt).lower().split()))
    if task is None:
        raise ConfigError(
            "prompt", expected="one of the tabletop task's sentences", found=repr(str(prompt)[:80]),
            hint=f"for example {WORDINGS['pick'][0].format('red')!r}",
        )  # fmt: skip
    return task
