"""Errors: every class crosses to another process with its words and fields."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from flashrt_core import errors
from flashrt_core.errors import FlashRTError, OpError
from flashrt_core.runtime.exec_status import ExecError
from flashrt_ros.bags.findings import BagError

MADE = {
    "OpError": lambda: OpError("gemm", "K", 7, "must be a multiple of 16", "M=1"),
    "BagError": lambda: BagError("F79", "bag x", found="nothing", hint="Look."),
    "ExecError": lambda: ExecError("replay", -2, "it ended"),
}
for _cls in (c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FlashRTError) and c is not OpError):
    MADE[_cls.__name__] = lambda cls=_cls: cls("thing", expected="this", found="that", hint="Do so.")


def raise_it(name: str) -> None:
    raise MADE[name]()


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", MADE)
def test_an_error_of_another_process_is_the_same_error(pool, name) -> None:
    want = MADE[name]()
    with pytest.raises(type(want)) as caught:
        pool.submit(raise_it, name).result()
    assert str(caught.value) == str(want) and vars(caught.value) == vars(want)
