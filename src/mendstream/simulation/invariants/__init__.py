"""What must hold at any moment of any run. To add one: its class in one of these files, and its row here."""

from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.events import Decided, NoBug, OffsetsGrow

INVARIANTS: tuple[type[Invariant], ...] = (NoBug, Decided, OffsetsGrow)
"""In the order in which they look."""

__all__ = ["INVARIANTS", "Invariant"]
