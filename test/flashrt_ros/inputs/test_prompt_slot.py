"""PromptSlot: the old prompt stays when a new one is refused."""

from __future__ import annotations

from flashrt_core.errors import ObservationError
from flashrt_ros.inputs.prompt_slot import PromptSlot


def test_prompt_is_kept_when_a_new_one_is_refused():
    def check(text):
        if len(text.split()) > 5:
            raise ObservationError("prompt", expected="at most 5 tokens", found=f"{len(text.split())}")

    slot = PromptSlot("pick up the cup", check)
    assert slot.put("one two three four five six").id == "F86"
    assert slot.text == "pick up the cup" and slot.take_reject().id == "F86" and slot.take_reject() is None
    assert slot.put("put it down") is None and slot.text == "put it down"
