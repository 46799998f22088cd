"""Invariants that know what they know from control records, and can be told it again."""

from __future__ import annotations

from typing import Self

from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story


class Folded(Invariant):
    """After a power cut it forgets, and is told what is left of the log, without judging it a second time."""

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self.now_us = machine.kernel.now_us
        """When that happened of which it is told."""
        self._again = False

    def told(self, append: Append) -> None:
        """A block is in the log, perhaps for some time."""

    def appended(self, append: Append) -> None:
        self.now_us = self.machine.kernel.now_us
        self.told(append)

    def forgot(self) -> None:
        fresh = self._fresh()
        fresh._again = True
        for fresh.now_us, append in self.story.history:
            fresh.told(append)
        fresh._again = False
        vars(self).clear()
        vars(self).update(vars(fresh))

    def broken(self, text: str) -> None:
        if not self._again:
            super().broken(text)

    def _fresh(self) -> Self:
        return type(self)(self.machine, self.story)
