"""Plan: graph replays with dependencies, executed as one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .exec_graph import KEY_INHERIT, Graph, Key, check_key
from .exec_status import CAPTURE, INVALID, OK, ExecError

if TYPE_CHECKING:
    from .exec import Ctx


@dataclass
class _Node:
    graph: Graph
    key: Key
    stream_id: int
    deps: list[int] = field(default_factory=list)


class Plan:
    """Nodes (graph, key, stream) and their order. Made by `Ctx.plan`."""

    def __init__(self, ctx: Ctx):
        self._ctx = ctx
        self._nodes: list[_Node] = []

    def add(self, graph: Graph, key: Key = KEY_INHERIT, stream_id: int = 0) -> int:
        """Append a replay of `graph`; KEY_INHERIT takes the key given to `execute`. Returns the node's index."""
        self._ctx.stream_handle(stream_id)
        self._nodes.append(_Node(graph, check_key("plan.add", key, inherit=True), stream_id))
        return len(self._nodes) - 1

    def after(self, node: int, dep: int) -> None:
        """Run `node` after `dep`. Raises ExecError on an index out of range or a cycle."""
        for index in (node, dep):
            if not 0 <= index < len(self._nodes):
                raise ExecError("plan.after", INVALID, f"node {index} is not in 0..{len(self._nodes) - 1}")
        if self._reaches(dep, node):
            raise ExecError("plan.after", INVALID, f"node {node} after {dep} would close a cycle")
        if dep not in self._nodes[node].deps:
            self._nodes[node].deps.append(dep)

    def _reaches(self, start: int, goal: int) -> bool:
        """True when `goal` is `start` or one of its dependencies, direct or not."""
        todo, seen = [start], set()
        while todo:
            index = todo.pop()
            if index == goal:
                return True
            if index not in seen:
                seen.add(index)
                todo += self._nodes[index].deps
        return False

    def order(self) -> list[int]:
        """The order of execution: dependencies first, otherwise the order of `add`."""
        done: list[int] = []
        waiting = list(range(len(self._nodes)))
        while waiting:
            index = next(i for i in waiting if all(d in done for d in self._nodes[i].deps))
            done.append(index)
            waiting.remove(index)
        return done

    def execute(self, key: Key = KEY_INHERIT) -> None:
        """Replay all nodes. Every variant and binding is checked first: a plan runs whole or not at all.

        A dependency on another stream is an event recorded there and waited for here. Raises ExecError (rc
        NO_VARIANT, UNBOUND, ...).
        """
        key = check_key("plan.execute", key, inherit=True)
        if self._ctx.recorder is not None:
            raise ExecError("plan.execute", CAPTURE, "a capture of this ctx is under way")
        keys = [key if node.key == KEY_INHERIT else node.key for node in self._nodes]
        for index, node in enumerate(self._nodes):
            if keys[index] == KEY_INHERIT:
                raise ExecError("plan.execute", INVALID, f"node {index} inherits its key, and execute() got none")
            rc = node.graph.check(keys[index])
            if rc != OK:
                raise ExecError("plan.execute", rc, f"node {index}, graph {node.graph.name!r}, key {keys[index]!r}")
        crossed = {d for n in self._nodes for d in n.deps if self._nodes[d].stream_id != n.stream_id}
        events = {}
        for index in self.order():
            node = self._nodes[index]
            for dep in node.deps:
                if self._nodes[dep].stream_id != node.stream_id:
                    self._ctx.stream_wait(node.stream_id, events[dep])
            node.graph.replay(keys[index], node.stream_id)
            if index in crossed:
                events[index] = self._ctx.event()
                events[index].record(node.stream_id)

    def sync(self) -> None:
        """Wait until the last execution has ended. Host streams run at once, so there is nothing left to wait for."""
