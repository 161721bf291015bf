"""The exec contract on the host: capture and replay, exact keys, LRU, ports, plans, memory."""

import numpy as np
import pytest

from flashrt_core.errors import DeviceError, NotBuilt
from flashrt_core.runtime import exec as ex


def recording_graph(ctx, log, name="g", **kw):
    """A graph whose variants append (name, tag) to `log`, and the function that captures one."""
    graph = ctx.graph(name, **kw)
    return graph, lambda key, tag: graph.capture(
        key, lambda stream: ctx.submit("op", lambda: log.append((name, tag)), stream)
    )


def test_capture_records_and_replay_runs_in_order():
    ctx, log = ex.Ctx(), []
    graph = ctx.graph("g")

    def record(stream):
        for i in range(3):
            ctx.submit("op", lambda i=i: log.append(i), stream)

    graph.capture(7, record)
    assert log == []
    assert graph.replay(7) == ex.OK and graph.replay(7) == ex.OK
    assert log == [0, 1, 2, 0, 1, 2]


def test_replay_reads_memory_at_replay_time_not_at_capture_time():
    ctx = ex.Ctx()
    a, b = ctx.buffer("a", 16), ctx.buffer("b", 16)
    graph = ctx.graph("copy")
    graph.capture(0, lambda s: ctx.copy(b, 0, a, 0, 16))
    a.array(np.float32)[:] = 5
    assert not b.array().any()
    graph.replay(0)
    assert (b.array(np.float32) == 5).all()


def test_missing_variant_is_minus_2_and_runs_nothing():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log)
    capture(1, "a")
    assert graph.replay(2) == ex.NO_VARIANT == -2
    assert log == [] and ctx.streams[0].submitted == 0


def test_declared_port_without_buffer_is_minus_3():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log)
    graph.declare("image", 12)
    capture(1, "a")
    assert graph.replay(1) == ex.UNBOUND == -3 and log == []
    with pytest.raises(ex.ExecError, match="needs 12 bytes"):
        graph.bind("image", ctx.buffer("small", 8))
    with pytest.raises(ex.ExecError, match="did you mean 'image'"):
        graph.bind("imag", ctx.buffer("i", 12))
    assert graph.replay(1) == ex.UNBOUND
    graph.bind("image", ctx.buffer("i", 12))
    assert graph.replay(1) == ex.OK and log == [("g", "a")]


def test_keys_are_exact():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log)
    capture(ex.ShapeKey.of(prompt=48, views=2), "a")
    assert graph.has_variant(ex.ShapeKey.of(views=2, prompt=48))
    assert graph.replay(ex.ShapeKey.of(prompt=47, views=2)) == ex.NO_VARIANT
    for bad in (-1, 1.0, True, None, "48", ex.KEY_INHERIT):
        with pytest.raises(ex.ExecError, match="rc=-1"):
            capture(bad, "x")
    assert graph.variant_count() == 1


def test_lru_evicts_the_variant_unused_for_longest():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log, max_variants=2)
    capture(1, "a")
    capture(2, "b")
    graph.replay(1)  # 2 is now the oldest
    graph.has_variant(2)  # asking does not count as use
    capture(3, "c")
    assert [graph.has_variant(k) for k in (1, 2, 3)] == [True, False, True]
    assert graph.evict_lru() == 1 and graph.evict(3) and not graph.evict(3) and graph.evict_lru() is None
    assert graph.variant_count() == 0


def test_capture_replaces():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log, max_variants=1)
    capture(1, "old")
    capture(1, "new")
    graph.replay(1)
    assert log == [("g", "new")] and graph.variant_count() == 1


def test_failed_capture_leaves_no_half_variant():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log)
    capture(1, "good")

    def broken(stream):
        ctx.submit("op", lambda: log.append("half"), stream)
        raise KeyError("in record")

    for key in (1, 2):
        with pytest.raises(KeyError):
            graph.capture(key, broken)
    assert ctx.recorder is None and not graph.has_variant(2)
    graph.replay(1)
    assert log == [("g", "good")]


def test_nested_capture_is_an_error_and_the_outer_one_survives_it():
    ctx, log = ex.Ctx(), []
    inner, capture_inner = recording_graph(ctx, log, "inner")
    outer = ctx.graph("outer")

    def record(stream):
        with pytest.raises(ex.ExecError, match="rc=-4"):
            capture_inner(1, "x")
        ctx.submit("op", lambda: log.append("outer"), stream)

    outer.capture(1, record)
    assert outer.replay(1) == 0 and log == ["outer"] and inner.variant_count() == 0


def test_replay_inside_a_capture_becomes_part_of_it():
    ctx, log = ex.Ctx(), []
    child, capture_child = recording_graph(ctx, log, "child")
    capture_child(1, "c")
    parent = ctx.graph("parent")
    parent.capture(1, lambda s: child.replay(1))
    assert log == []
    parent.replay(1)
    assert log == [("child", "c")]


def test_adopt_does_not_own():
    ctx, log = ex.Ctx(), []

    class Work:
        freed = False

        def __call__(self):
            log.append("run")

        def close(self):
            self.freed = True

    graph, work = ctx.graph("g"), Work()
    graph.adopt(5, work)
    assert graph.replay(5) == 0 and graph.evict(5) and not work.freed
    work()
    assert log == ["run", "run"]
    with pytest.raises(NotBuilt):
        graph.adopt(5, 0xDEAD)
    with pytest.raises(ex.ExecError):
        graph.adopt(5, "not callable")


def test_a_failing_call_is_a_typed_backend_error():
    ctx = ex.Ctx()
    graph = ctx.graph("g")
    graph.adopt(1, lambda: 1 / 0)
    with pytest.raises(RuntimeError, match=r"g\.replay failed: rc=-5 \(BACKEND\)") as caught:
        graph.replay(1)
    assert isinstance(caught.value, DeviceError) and caught.value.rc == ex.BACKEND
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_plan_runs_dependencies_first_and_keeps_the_order_of_add_otherwise():
    ctx, log = ex.Ctx(), []
    plan = ctx.plan()
    for name in "abcd":
        graph, capture = recording_graph(ctx, log, name)
        capture(1, 0)
        plan.add(graph, 1)
    plan.after(0, 2)
    plan.after(2, 3)
    plan.execute()
    plan.sync()
    assert [name for name, _ in log] == ["b", "d", "c", "a"] == ["abcd"[i] for i in plan.order()]


def test_plan_waits_across_streams():
    ctx, log = ex.Ctx(), []
    side = ctx.stream(priority=-1)
    graphs = []
    for name in "ab":
        graph, capture = recording_graph(ctx, log, name)
        capture(1, 0)
        graphs.append(graph)
    plan = ctx.plan()
    first, second = plan.add(graphs[0], 1, side), plan.add(graphs[1], 1, 0)
    plan.after(second, first)
    plan.execute()
    assert ctx.streams[0].waited == {side: 1} and ctx.streams[side].waited == {}


def test_plan_rejects_cycles_and_bad_indices():
    ctx, log = ex.Ctx(), []
    graph, capture = recording_graph(ctx, log)
    capture(1, 0)
    plan = ctx.plan()
    a, b, c = (plan.add(graph, 1) for _ in range(3))
    plan.after(b, a)
    plan.after(c, b)
    for node, dep in ((a, c), (a, a), (a, b)):
        with pytest.raises(ex.ExecError, match="cycle"):
            plan.after(node, dep)
    for node, dep in ((3, 0), (0, -1)):
        with pytest.raises(ex.ExecError, match="not in"):
            plan.after(node, dep)
    plan.execute()
    assert len(log) == 3


def test_plan_inherits_the_key_and_runs_whole_or_not_at_all():
    ctx, log = ex.Ctx(), []
    one, capture_one = recording_graph(ctx, log, "one")
    two, capture_two = recording_graph(ctx, log, "two")
    capture_one(1, "1")
    capture_one(2, "2")
    capture_two(1, "1")
    plan = ctx.plan()
    plan.add(one)
    plan.add(two, 1)
    plan.execute(2)
    assert log == [("one", "2"), ("two", "1")]
    log.clear()
    with pytest.raises(ex.ExecError, match="inherits"):
        plan.execute()
    two.evict(1)
    with pytest.raises(ex.ExecError, match="rc=-2"):
        plan.execute(1)
    two.declare("x")
    capture_two(1, "1")
    with pytest.raises(ex.ExecError, match="rc=-3"):
        plan.execute(1)
    assert log == []


def test_plan_and_capture_do_not_mix():
    ctx = ex.Ctx()
    plan = ctx.plan()
    with pytest.raises(ex.ExecError, match="rc=-4"):
        ctx.graph("g").capture(1, lambda s: plan.execute())


def test_buffer_is_aligned_zeroed_named_memory():
    ctx = ex.Ctx()
    for n in (1, 100, 4097):
        b = ctx.buffer("b", n)
        assert b.dptr() % 256 == 0 and b.nbytes() == n and b.name() == "b" and not b.array().any()
    b = ctx.buffer("b", 24)
    b.array(np.float32, (2, 3))[1, 2] = 4
    assert b.array(np.float32)[5] == 4 and b.array(np.float32, 6).shape == (6,)
    assert ctx.wrap("w", b.dptr() + 20, 4).array(np.float32)[0] == 4
    with pytest.raises(ex.ExecError, match="28 of 24"):
        b.array(np.float32, (7,))


def test_a_view_keeps_the_memory_alive():
    view = ex.Ctx().buffer("b", 1 << 20).array(np.int64)
    view[:] = 3
    assert (view == 3).all()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_bad_sizes(size):
    with pytest.raises(ex.ExecError, match="rc=-1"):
        ex.Ctx().buffer("b", size)


def test_bad_wraps_and_out_of_memory():
    ctx = ex.Ctx()
    for ptr in (0, -8, None, 1.0):
        with pytest.raises(ex.ExecError, match="rc=-1"):
            ctx.wrap("w", ptr, 4)
    with pytest.raises(ex.ExecError, match="rc=-6"):
        ctx.buffer("huge", 1 << 62)


def test_copy_is_bounds_checked():
    ctx = ex.Ctx()
    a, b = ctx.buffer("a", 8), ctx.buffer("b", 4)
    a.array()[:] = np.arange(8)
    ctx.copy(b, 1, a, 5, 3)
    assert b.array().tolist() == [0, 5, 6, 7]
    ctx.copy(a, 2, a, 0, 6)  # overlapping
    assert a.array().tolist() == [0, 1, 0, 1, 2, 3, 4, 5]
    for args in ((b, 2, a, 0, 3), (b, 0, a, 6, 3), (b, -1, a, 0, 1), (b, 0, a, 0, -1), (b, 0, a, 0, 1, 9)):
        with pytest.raises(ex.ExecError, match="rc=-1"):
            ctx.copy(*args)


def test_streams_and_events():
    ctx = ex.Ctx()
    wrapped = ctx.wrap_stream(0x7F00)
    assert wrapped == 1 and ctx.stream_handle(wrapped) == 0x7F00 and ctx.stream_handle(0) == 0
    seen = []
    graph = ctx.graph("g")
    graph.capture(1, seen.append, wrapped)
    assert seen == [0x7F00]
    ctx.submit("op", lambda: None, 0x7F00)
    event = ctx.event()
    ctx.stream_wait(0, event)  # never recorded: nothing to wait for
    assert ctx.streams[0].waited == {}
    event.record(wrapped)
    ctx.stream_wait(0, event)
    assert ctx.streams[0].waited == {wrapped: 1}
    for call in (lambda: ctx.stream_wait(9, event), lambda: event.record(9), lambda: graph.replay(1, 9)):
        with pytest.raises(ex.ExecError, match="no stream 9"):
            call()
    with pytest.raises(ex.ExecError, match="handle 77"):
        ctx.submit("op", lambda: None, 77)
    assert ctx.stream_handle(ctx.wrap_stream(2)) == 2 and ctx.stream_handle(ctx.stream()) not in (0, 2, 0x7F00)


def test_message_has_the_documented_form():
    assert str(ex.ExecError("replay", -2, "why")) == "replay failed: rc=-2 (NO_VARIANT). why"
