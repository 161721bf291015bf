"""Element types as the integer codes that ops take."""

from __future__ import annotations

from enum import IntEnum


class DType(IntEnum):
    """Codes shared by Python, the op table and the C ABI. Values never change."""

    F32 = 0
    BF16 = 1
    F16 = 2
    E4M3 = 3
    I8 = 4
    U8 = 5
    I32 = 6

    @property
    def nbytes(self) -> int:
        return {DType.F32: 4, DType.BF16: 2, DType.F16: 2, DType.I32: 4}.get(self, 1)


F32, BF16, F16, E4M3, I8, U8, I32 = DType
