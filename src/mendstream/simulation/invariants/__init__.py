"""What must hold at any moment of any run. To add one: its class in one of these files, and its row here."""

from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.config import ConfigGrows, ConfigReaches, ConfigReplays, EpochsGrow
from mendstream.simulation.invariants.counting import CountedOnce, LabelsJoined
from mendstream.simulation.invariants.decisions import AsTheModelSays, SameDecision
from mendstream.simulation.invariants.events import DeadLetters, Decided, NoBug, OffsetsGrow, Order, Whole
from mendstream.simulation.invariants.gates import Gated
from mendstream.simulation.invariants.governance import Answered, Approved, Budgets, Chain
from mendstream.simulation.invariants.healing import ChosenOnce, HarmUndone, LegalMoves, OneRemedy, ProvenCure
from mendstream.simulation.invariants.state import StateIsTheLog
from mendstream.simulation.invariants.store import SqlIsTheLog
from mendstream.simulation.invariants.visible import EndsAreTold
from mendstream.simulation.invariants.watching import (
    CalmQuiet,
    DeadReported,
    HealthyLeftAlone,
    HungEnded,
    StuckReported,
)

INVARIANTS: tuple[type[Invariant], ...] = (
    NoBug, Decided, OffsetsGrow, SameDecision, Whole, Order, DeadLetters, AsTheModelSays, CountedOnce, LabelsJoined,
    EndsAreTold, StateIsTheLog, SqlIsTheLog,
    LegalMoves, OneRemedy, ChosenOnce, ProvenCure, HarmUndone, Gated, Approved, Answered, Budgets, Chain,
    EpochsGrow, ConfigGrows, ConfigReaches, ConfigReplays, DeadReported, StuckReported, HungEnded, HealthyLeftAlone,
    CalmQuiet,
)  # fmt: skip
"""In the order in which they look."""

__all__ = ["INVARIANTS", "Invariant"]
