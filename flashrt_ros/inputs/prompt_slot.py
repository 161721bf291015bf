"""PromptSlot: keeps the task in words; a text that cannot be a prompt is refused and the old one stays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from flashrt_core.errors import ObservationError
from flashrt_core.inputs import clean_prompt

from ..control.faults import FaultReport
from ..redact import public_error


class PromptSlot:
    """The prompt in force. A new one replaces it only when it may be one (F86).

    Some the policy alone can judge (how many tokens it takes): `refused` brings back the last one that it `served`.
    """

    def __init__(self, prompt: str = "", check: Callable[[str], None] | None = None, topic: str = "prompt"):
        """check: raises ObservationError for a prompt that the policy cannot take (too many tokens)."""
        self.text, self.topic = "", topic
        self.reject: FaultReport | None = None  # since the reader last took it
        self.counters: Counter[str] = Counter()
        self.refusal = ""  # why there is no prompt, when the policy refused the only one
        self._check = check
        self._served = ""
        self._lock = threading.Lock()
        if prompt:
            self.put(prompt)

    def put(self, text: str) -> FaultReport | None:
        """Store the prompt, or return why not and keep the old one."""
        try:
            clean_prompt(text)
            if self._check is not None:
                self._check(text)
        except ObservationError as error:
            return self._refuse(error)
        with self._lock:
            self.text, self.reject, self.refusal = text, None, ""
        return None

    def _refuse(self, error: ObservationError) -> FaultReport:
        self.counters["F86"] += 1
        report = FaultReport("F86", f"{self.topic}: {public_error(error)}; the old prompt stays", self.topic)
        self.reject = report
        return report

    def served(self, text: str) -> None:
        """The policy has answered a request with this prompt."""
        self._served = text

    def refused(self, text: str, error: ObservationError) -> bool:
        """The policy cannot take this prompt: back to the last one that it took, or to none. False when it was that one."""
        if text == self._served:
            return False
        report = self._refuse(error)
        with self._lock:
            if self.text == text:  # else a new one has come meanwhile
                self.text = self._served
                self.refusal = "" if self.text else report.reason.removesuffix("; the old prompt stays")
        return True

    def take_reject(self) -> FaultReport | None:
        """The refusal since the last call, if any."""
        found, self.reject = self.reject, None
        return found
