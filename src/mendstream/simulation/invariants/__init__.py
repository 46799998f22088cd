"""What must hold at any moment of any run. To add one: its class in one of these files, and its row here."""

from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.counting import CountedOnce, LabelsJoined
from mendstream.simulation.invariants.decisions import AsTheModelSays, SameDecision
from mendstream.simulation.invariants.events import DeadLetters, Decided, NoBug, OffsetsGrow, Order, Whole
from mendstream.simulation.invariants.state import StateIsTheLog
from mendstream.simulation.invariants.store import SqlIsTheLog
from mendstream.simulation.invariants.visible import EndsAreTold

INVARIANTS: tuple[type[Invariant], ...] = (
    NoBug, Decided, OffsetsGrow, SameDecision, Whole, Order, DeadLetters, AsTheModelSays, CountedOnce, LabelsJoined,
    EndsAreTold, StateIsTheLog, SqlIsTheLog,
)  # fmt: skip
"""In the order in which they look."""

__all__ = ["INVARIANTS", "Invariant"]
