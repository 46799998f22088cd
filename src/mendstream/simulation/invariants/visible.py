"""Nothing fails in silence."""

from __future__ import annotations

from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.machine import SUPERVISOR

"""A supervisor that ends so soon after another process may not have reported that."""


class EndsAreTold(Invariant):
    """Each process that ends by itself is in a record: else nobody learns of a crash, or of a commit refused."""

    name = "each end is told"

    def end(self) -> None:
        machine, exits = self.machine, self.story.trail(self.machine).exits
        supervisor = [life.at_us for life in machine.life if life.process == SUPERVISOR and life.what == "ended"]
        for life in machine.life:
            if life.what != "ended" or life.process == SUPERVISOR or life.ordered:
                continue
            if any(life.at_us <= at for at in supervisor):
                continue  # what it had told may be gone with its log, or untold
            if (life.process, life.generation) not in exits:
                self.broken(f"{life.process} of generation {life.generation} ended, and no record says so")
