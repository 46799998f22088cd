"""Planted bugs: each shows that an invariant can fail. To add one: its row in one of these files."""

from mendstream.simulation.bugs.base import Bug
from mendstream.simulation.bugs.events import BUGS as EVENTS
from mendstream.simulation.bugs.healing import BUGS as HEALING

BUGS: tuple[Bug, ...] = (*EVENTS, *HEALING)

__all__ = ["BUGS", "Bug"]
