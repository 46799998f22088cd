"""No event is lost, none is decided twice, nothing goes back."""

from __future__ import annotations

from mendstream.contracts.agent import TaskId
from mendstream.contracts.ports import TaskCommit
from mendstream.contracts.records import DeadLetter, Decision
from mendstream.contracts.topics import Stream, Topic
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story


class NoBug(Invariant):
    """A step that fails as only a bug can takes its process down again and again: nothing would be served."""

    name = "no bug"

    def tick(self) -> None:
        for crash in self.machine.crashes:
            self.broken(f"{crash.process}: {crash}")


class Decided(Invariant):
    """Each accepted event has exactly one decision or dead letter: else a customer has no answer, or two."""

    name = "each event once"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._decided: set[str] = set()
        self._letters = 0

    def appended(self, append: Append) -> None:
        match append.stream.topic:
            case Topic.DECISIONS:
                for record in append.records:
                    if isinstance(record, Decision):
                        if record.event_id in self._decided:
                            self.broken(f"{record.event_id} was decided twice")
                        self._decided.add(record.event_id)
            case Topic.DEAD_LETTERS:
                self._letters += sum(isinstance(r, DeadLetter) and r.stage == "ingestion" for r in append.records)

    def end(self) -> None:
        tape = self.machine.tape
        wanted = {made.event_id for made in tape.made if made.event_id}
        missing = wanted - self._decided
        if missing:
            self.broken(f"{len(missing)} of {len(wanted)} events have no decision, such as {min(missing)}")


class OffsetsGrow(Invariant):
    """Positions never go back: else what was read is read again, and decided again."""

    name = "offsets never go back"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._at: dict[tuple[TaskId, Stream], int] = {}

    def committed(self, commit: TaskCommit, process: str, generation: int) -> None:
        for stream, position in commit.positions.items():
            held = self._at.get((commit.task, stream), 0)
            if position < held:
                self.broken(f"{commit.task} goes back from {held} to {position} of {stream}")
            self._at[commit.task, stream] = position
