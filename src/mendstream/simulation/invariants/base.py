"""What an invariant is: it looks at everything that happens, and says when a promise is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.topics import Topic
from mendstream.simulation.log import Append

if TYPE_CHECKING:
    from mendstream.simulation.machine import Machine
    from mendstream.simulation.story import Story


class Invariant:
    """A subclass's docstring says what a user would lose. All hooks come after the fact; `story` has folded it."""

    name: ClassVar[str]
    topics: ClassVar[tuple[Topic, ...]] = ()
    """What `appended` is told of: most look at a few topics only, and most blocks are pulses and counts."""

    def __init__(self, machine: Machine, story: Story) -> None:
        self.machine = machine
        self.story = story

    def appended(self, append: Append) -> None:
        """A block of one of `topics` is in the log."""

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        """A turn is in the log; its outputs have been told of before."""

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        """A task has a new owner."""

    def forgot(self) -> None:
        """A power cut took the newest part of the log, and tasks stand again where they were synced; `machine.log` has
        what is left. What was seen of the lost part does not count any more, and may come again, or otherwise.
        """

    def tick(self) -> None:
        """Four times a second."""

    def end(self) -> None:
        """The faults have stopped, the house had its time to become well, and the stream has run dry."""

    def broken(self, text: str) -> None:
        """The promise is broken; the run ends with this."""
        self.story.broken(self.name, text)
