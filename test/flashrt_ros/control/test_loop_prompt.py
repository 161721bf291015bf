"""A prompt that only the policy can judge (too many tokens): the old one stays in force and the arm goes on (F86)."""

import pytest
from support.loop_rig import LoopRig, script

from flashrt_core.errors import ObservationError
from flashrt_ros.control.health import Level
from flashrt_ros.worker.interface import ScriptedWorker

LIMIT = 3  # words


class WordyWorker(ScriptedWorker):
    def infer_actions(self, obs):
        words = len(obs.prompt.split())
        if words > LIMIT:
            raise ObservationError("prompt", expected=f"at most {LIMIT} tokens", found=f"{words} tokens")
        return super().infer_actions(obs)


def rig(**fields) -> LoopRig:
    return LoopRig(0.02, play=script(**fields), worker=WordyWorker(script(**fields), sleep=None))


def test_F86_a_prompt_with_too_many_tokens_leaves_the_old_one_in_force():
    r = rig().activate()
    r.run(50)
    assert r.inputs.put_prompt("one two three four") is None, "as text it is one"
    seen = set()
    for _ in range(60):
        r.tick()
        seen |= set(r.health.active.items())
    assert seen == {("F86", Level.NOTE)}, "the arm coasts on the old chunk, nothing holds"
    assert r.inputs.prompt == "go" and r.record.chunks[-1].observation.prompt == "go" and not r.active()
    assert {record.source for record in list(r.record.records)[-100:]} == {"chunk"}
    assert r.loop.counters.index_errors == 0
    r.inputs.put_prompt("to the left")
    r.run(40)
    assert r.record.chunks[-1].observation.prompt == "to the left"


def test_F86_without_an_old_one_it_holds_and_says_why():
    r = rig()
    r.inputs.put_prompt("one two three four")
    r.activate()
    r.run(60)
    assert r.health.active == {"F86": Level.HOLD} and set(r.run(20)) == {0.0}
    assert "at most 3 tokens, found 4 tokens" in r.health.worst.reason
    with pytest.raises(ObservationError, match=r"no prompt: .*at most 3 tokens"):
        r.loop.takeover()
        r.loop.release()
    r.inputs.put_prompt("go on")
    r.see()
    r.loop.release()
    r.run(30)
    assert not r.active() and r.record.records[-1].source == "chunk"


def test_an_error_with_the_prompt_that_was_good_is_the_policys():
    """F42: coast, then hold; nothing to go back to."""
    r = rig(horizon=20)
    r.activate()
    r.run(30)
    r.worker.infer_actions = lambda obs: (_ for _ in ()).throw(ObservationError("prompt", expected="x", found="y"))
    r.run(60)
    assert "F42" in r.health.active and "F86" not in r.health.active
