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


def test_what_the_policy_refuses_gives_way_to_what_it_took_last():
    error = ObservationError("prompt", expected="at most 5 tokens", found="9 tokens")
    slot = PromptSlot("too long for it")
    assert slot.refused("too long for it", error) and slot.text == "" and "at most 5 tokens" in slot.refusal
    assert slot.put("pick up the cup") is None and not slot.refusal
    slot.served("pick up the cup")
    slot.put("also too long")
    assert slot.refused("also too long", error) and slot.text == "pick up the cup" and not slot.refusal
    assert slot.take_reject().id == "F86" and slot.counters["F86"] == 2
    slot.put("newer")  # came while the policy was still busy with the bad one
    assert slot.refused("also too long", error) and slot.text == "newer"
    slot.put("pick up the cup")
    assert not slot.refused("pick up the cup", error), "it took this one before: something else is wrong"
