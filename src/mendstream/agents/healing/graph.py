"""The seven steps as a LangGraph StateGraph. The only place that imports LangGraph.

The graph is entered at the node of the incident's phase, when a legal move is due, and ends when the incident waits for
news. It keeps no checkpoint: the incident in the agent's state is the only one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from langgraph.graph import END, START, StateGraph

from mendstream.agents.healing import ending, nodes
from mendstream.agents.healing.state import Incident
from mendstream.agents.healing.turn import Turn

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

Node = Callable[[Turn, Incident], str]

NODES: dict[str, tuple[Node, tuple[str, ...]]] = {
    "detect": (nodes.detect, ("log",)),
    "log": (nodes.log_incident, ("plan", "remember")),
    "plan": (nodes.plan, ("plan", "undo", "remember", END)),
    "approve": (nodes.approve, ("execute", "plan", "undo", "remember", END)),
    "execute": (nodes.execute, ("verify", "plan", "undo", "remember", END)),
    "verify": (nodes.verify, ("plan", "undo", "remember", END)),
    "undo": (nodes.undo, ("plan", "remember", END)),
    "remember": (ending.remember, ("undo", "remember", END)),
}
"""Each node with the nodes that may follow it."""
_LIMIT = 50


class State(TypedDict):
    turn: Turn
    incident: Incident
    follows: str


class Call(Protocol):
    """A node as LangGraph wants it: it asks for the parameter's name."""

    def __call__(self, state: State) -> dict[str, Any]: ...


@cache
def graph() -> CompiledStateGraph[State, None, State, State]:
    """Compiled once a process."""
    built = StateGraph(State)
    for name, (node, after) in NODES.items():
        built.add_node(name, _wrapped(node))
        built.add_conditional_edges(name, _follows, list(after))
    built.add_conditional_edges(START, _entry, list(NODES))
    return built.compile()


def run(turn: Turn, incident: Incident) -> None:
    """All moves that are due for `incident`, up to where it waits."""
    graph().invoke({"turn": turn, "incident": incident, "follows": ""}, {"recursion_limit": _LIMIT})


def _wrapped(node: Node) -> Call:
    def call(state: State) -> dict[str, Any]:
        return {"follows": node(state["turn"], state["incident"])}

    return call


def _follows(state: State) -> str:
    return state["follows"]


def _entry(state: State) -> str:
    return nodes.entry(state["incident"])
