"""PromptSlot: keeps the task in words; a text that cannot be a prompt is refused and the old one stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from flashrt_core.errors import ObservationError
from flashrt_core.inputs import clean_prompt

from ..control.faults import FaultReport
from ..redact import public_error


class PromptSlot:
    """The prompt in force. A new one replaces it only when it may be one (F86)."""

    def __init__(self, prompt: str = "", check: Callable[[str], None] | None = None, topic: str = "prompt"):
        """check: raises ObservationError for a prompt that the policy cannot take (too many tokens)."""
        self.text, self.topic = "", topic
        self.reject: FaultReport | None = None  # since the reader last took it
        self.counters: Counter[str] = Counter()
        self._check = check
        if prompt:
            self.put(prompt)

    def put(self, text: str) -> FaultReport | None:
        """Store the prompt, or return why not and keep the old one."""
        try:
            clean_prompt(text)
            if self._check is not None:
                self._check(text)
        except ObservationError as error:
            self.counters["F86"] += 1
            report = FaultReport("F86", f"{self.topic}: {public_error(error)}; the old prompt stays", self.topic)
            self.reject = report
            return report
        self.text, self.reject = text, None
        return None

    def take_reject(self) -> FaultReport | None:
        """The refusal since the last call, if any."""
        found, self.reject = self.reject, None
        return found
