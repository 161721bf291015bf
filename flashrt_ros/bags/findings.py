"""What reading a bag finds wrong, by fault id: findings that are collected, and the error when nothing can be read."""

from __future__ import annotations

from dataclasses import dataclass

from flashrt_core.errors import ConfigError

LOSS = frozenset({"F76", "F77"})  # messages are missing; the others only say how far the bag can be trusted


@dataclass(frozen=True)
class Finding:
    """fault: F76 cut, F77 damaged, F78 metadata, F79 topic, F80 log time, F81 no checksum. count: messages concerned.

    For F76 and F77 the count is how many messages are known to be lost; 0 where nothing says how many there were.
    """

    fault: str
    text: str
    count: int

    @property
    def is_loss(self) -> bool:
        return self.fault in LOSS


class BagError(ConfigError):
    """Nothing can be read from the bag, or what was asked for is not in it. `fault` is the row of the fault table."""

    def __init__(
        self, fault: str, thing: str, *, expected: object = None, found: object = None, hint: str | None = None
    ):
        self.fault = fault
        super().__init__(f"{fault}: {thing}", expected=expected, found=found, hint=hint)


class Findings:
    """Collects findings; of many alike, the first MANY are kept one by one and the rest as one with the sum of its counts."""

    MANY = 10

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._more: dict[str, tuple[int, int]] = {}
        self._back: dict[str, tuple[int, int]] = {}  # file -> (messages, largest step back in ns)

    def add(self, fault: str, text: str, count: int = 0) -> None:
        """text may hold names out of the bag; what a terminal would act on is taken out."""
        text = "".join(c if c.isprintable() else "?" for c in text)
        if sum(f.fault == fault for f in self._kept) < self.MANY:
            self._kept.append(Finding(fault, text, count))
        else:
            number, total = self._more.get(fault, (0, 0))
            self._more[fault] = number + 1, total + count

    def add_back(self, file: str, count: int, step_ns: int) -> None:
        """F80: `count` more messages of a file are older than one before them, the oldest by step_ns. One finding a file."""
        number, largest = self._back.get(file, (0, 0))
        self._back[file] = number + count, max(largest, step_ns)

    def listed(self) -> list[Finding]:
        """Worst first: by fault id, then in the order in which they were found."""
        rest = [Finding(fault, f"{number} more of this kind", total) for fault, (number, total) in self._more.items()]
        back = [
            Finding("F80", f"{file}: log time goes back at {number} messages, by up to {step_ns / 1e9:.6g} s", number)
            for file, (number, step_ns) in self._back.items()
        ]
        return sorted([*self._kept, *rest, *back], key=lambda f: f.fault)
