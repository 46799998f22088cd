"""One turn: poll, slice, step, finish. The same driver runs agents live and simulated.

Finish is one transaction over outputs, positions, state and dead letters; recovery is to poll again. A chain of legs is
a fused worker: each stage's frames go straight to the next, and all of it is still written, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from mendstream.contracts.agent import Batch, Outputs, TaskId
from mendstream.contracts.errors import CommitUnknown, Conflict, NoAnswer, TooLarge
from mendstream.contracts.frame import Frame
from mendstream.contracts.ports import Bus, Clock, Out, TaskCommit
from mendstream.contracts.records import DeadLetter, TaskPulse
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.runtime.leg import Leg

Observe = Callable[[str, int, float, Outputs], None]


class StepSpan(Protocol):
    """One step that is traced. If its turn is not finished, `done` is never called."""

    def made(self, outputs: Outputs) -> None:
        """The step has ended; nothing of it is encoded yet."""

    def done(self, rows: int, seconds: float, now: int) -> None:
        """Its turn is in the log."""


Trace = Callable[[TaskId, Batch, int], StepSpan | None]
"""Asked before each step, with the time; None: it is not traced."""
COUNTS_EVERY_US = 100_000
UNREADY_S = 0.01
"""How soon a model that is being loaded is asked for again."""
_PRESSURE_EVERY_US = 20_000
_log = structlog.get_logger("worker")


class _Step(NamedTuple):
    outputs: Outputs
    rows: int
    seconds: float
    span: StepSpan | None


class Driver:
    """Owns one leg, or the legs of a fused chain in the order of the pipeline."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        legs: Sequence[Leg],
        *,
        stopwatch: Callable[[], float],
        pressure: Callable[[], bool] = lambda: False,
        observe: Observe = lambda agent, rows, seconds, outputs: None,
        linger_us: int = 0,
        trace: Trace | None = None,
    ) -> None:
        """`stopwatch`: seconds, to time steps with. `pressure`: whether the stage behind has too much to do already.
        `observe`: told of each step whose turn is in the log: agent, rows, seconds, outputs. `linger_us`: least time
        between two looks at the source.
        """
        self._bus = bus
        self._clock = clock
        self._legs = list(legs)
        self._stopwatch = stopwatch
        self._pressure = pressure
        self._observe = observe
        self._linger_us = linger_us
        self._trace = trace
        self._look_at_us = 0
        """When the source may be looked at again."""
        self._pressed = False
        self._pressure_at = 0
        self._drained = len(legs) == 1
        self._void = False
        """A turn was not finished: what the legs have may be ahead of the log, or behind it."""
        self._counts_at = 0
        self._counts_due = True
        self._rows = 0
        """Of the last turn, in its largest step."""

    # --- turns -------------------------------------------------------------------------------------------------------

    def pump(self) -> bool:
        """One turn, if anything is due; False if nothing was."""
        now = self._clock.now_us()
        end = self._bus.bounds(CONFIG)[1]
        for leg in self._legs:
            leg.fold_config(end)
        busy = self._turn(now)
        self._send_counts(self._clock.now_us())  # after the step, which may have taken its time
        return busy

    def _turn(self, now: int) -> bool:
        if self._void:
            self._again()
        try:
            return self._attempt(now)
        except (Conflict, CommitUnknown):
            self._void = True
            self._again()
            return True
        except TooLarge as error:
            self._take_less(error)
            self._void = True
            self._again()
            return True
        except NoAnswer:
            self._void = True  # a step may have been done before something else could not be read
            raise

    def _take_less(self, error: TooLarge) -> None:
        """Half the rows a turn for as long as this process lives; raises the error where that cannot help."""
        rows = min([self._rows, *(leg.slicer.rows for leg in self._legs)]) // 2
        if not rows:
            raise error
        _log.warning("a turn was too large for the log: fewer rows a turn from now on", rows=rows, cause=str(error))
        for leg in self._legs:
            leg.slicer.at_most(rows)

    def _again(self) -> None:
        """Raises NoAnswer: then the next turn begins with it."""
        for leg in self._legs:
            leg.again()
        self._void = self._drained = False

    def _attempt(self, now: int) -> bool:
        if not self._drained:
            # What an unfused past has left between the stages goes first, from the end, or order would be lost.
            for leg in reversed(self._legs[1:]):
                if leg.backlog():
                    return self._run([leg], now)
            self._drained = True
        if self._run(self._legs, now):
            return True
        # Somebody may have put something between the stages: a replay of dead letters does.
        self._drained = not any(leg.backlog() for leg in self._legs[1:])
        return not self._drained

    def _run(self, legs: list[Leg], now: int) -> bool:
        fused = len(legs) > 1
        serving = not any(leg.starting for leg in legs)
        most = min(leg.slicer.rows for leg in legs)
        data = serving and now >= self._look_at_us and not self._under_pressure(now)
        batch, after, dead = legs[0].poll(data=data, most=most)
        if (batch.lines or batch.feedback) and len(batch.lines) < most:
            self._look_at_us = now + self._linger_us  # it was emptied: what comes next may gather
        self._rows = 0
        commits: list[TaskCommit] = []
        done: list[tuple[Leg, _Step]] = []
        made: Sequence[tuple[Topic, int, Frame]] = ()
        for place, leg in enumerate(legs):
            own: list[Stream] = []
            if place > 0:
                batch, own, dead, after = self._handed(leg, made), [leg.inputs[0]] if made else [], [], {}
            if not self._due(leg, batch, after, dead, now):
                made = ()
                continue
            step = self._step(leg, batch, after, dead, now)
            made = step.outputs.frames if fused else ()
            self._rows = max(self._rows, step.rows)
            commits.append(leg.commit_of(step.outputs, after, past_own=own))
            done.append((leg, step))
        if not commits:
            return False
        ends = self._bus.commit(commits)
        for commit, (leg, step) in zip(commits, done, strict=True):
            leg.committed(commit, ends, step.outputs)
            leg.marks.end()
            self._observe(leg.agent.name, step.rows, step.seconds, step.outputs)
            if step.span is not None:
                step.span.done(step.rows, step.seconds, self._clock.now_us())
        if commits[0].positions:
            legs[0].taken_from_source()
        self._counts_due = True
        return True

    def _handed(self, leg: Leg, made: Sequence[tuple[Topic, int, Frame]]) -> Batch:
        """What the stage before has just made, as this stage's input."""
        mine = [(topic, frame) for topic, p, frame in made if topic is leg.inputs[0].topic and p == leg.task.partition]
        batch, _, _ = leg.poll(data=False)
        batch.frames = [frame for _, frame in mine]
        batch.topics = [topic for topic, _ in mine]
        return batch

    def _due(self, leg: Leg, batch: Batch, after: dict[Stream, int], dead: list[DeadLetter], now: int) -> bool:
        waking = leg.wake_at_us is not None and leg.wake_at_us <= now
        return bool(not batch.empty or after or dead or waking or leg.config_pending or leg.resumed)

    def _step(self, leg: Leg, batch: Batch, after: dict[Stream, int], dead: list[DeadLetter], now: int) -> _Step:
        batch = leg.begin_step(batch, after, dead, now)
        rows = sum(frame.rows for frame in batch.frames) + len(batch.lines)
        at_us = self._clock.now_us()
        span = None if self._trace is None else self._trace(leg.task, batch, at_us)
        started = self._stopwatch()
        leg.state, outputs = leg.agent.step(leg.state, batch, at_us)
        seconds = self._stopwatch() - started
        if rows:
            leg.slicer.saw(rows, seconds)
        leg.end_step()
        outputs.dead[:0] = dead
        if span is not None:
            span.made(outputs)
        return _Step(outputs, rows + len(batch.records) + len(batch.feedback), seconds, span)

    def _under_pressure(self, now: int) -> bool:
        if now - self._pressure_at >= _PRESSURE_EVERY_US:
            self._pressure_at = now
            self._pressed = self._pressure()
        return self._pressed

    @property
    def behind(self) -> bool:
        """Whether the next turn is due at once; else the bell, or `wait_s`, says when."""
        return any(leg.resumed or leg.backlog() for leg in self._legs)

    # --- outside the turn --------------------------------------------------------------------------------------------

    def _send_counts(self, now: int) -> None:
        """Counts are never part of a transaction, or one dead process would hide everybody's."""
        if not self._counts_due or now - self._counts_at < COUNTS_EVERY_US:
            return
        sent = [leg.sent for leg in self._legs]
        outs: list[Out] = [out for leg in self._legs for out in leg.counts_out()]
        if outs:
            try:
                self._bus.publish(outs)
            except NoAnswer:
                for leg, before in zip(self._legs, sent, strict=True):
                    leg.sent = before
                raise
        self._counts_at, self._counts_due = now, False

    def wait_s(self, most: float) -> float:
        """How long nothing is due for, at most `most` seconds."""
        now = self._clock.now_us()
        waits = [most]
        for leg in self._legs:
            if leg.wake_at_us is not None:
                waits.append((leg.wake_at_us - now) / 1e6)
            if leg.source is not None and not self._pressed and not any(leg.starting for leg in self._legs):
                due, early = leg.source.due_in_s(), (self._look_at_us - now) / 1e6
                if due is not None:
                    waits.append(max(due, early))
                elif early > 0:
                    waits.append(early)  # it may have rung meanwhile
        if self._counts_due:
            waits.append((self._counts_at + COUNTS_EVERY_US - now) / 1e6)
        if any(leg.unready for leg in self._legs):
            waits.append(UNREADY_S)
        if self._pressed:
            waits.append(_PRESSURE_EVERY_US / 1e6)
        return max(0.0, min(waits))

    def wake_by(self, ring: Callable[[], None]) -> None:
        """`ring` wakes the loop that pumps this driver."""
        for leg in self._legs:
            if leg.source is not None:
                leg.source.wake_by(ring)

    def close(self) -> None:
        for leg in self._legs:
            if leg.source is not None:
                leg.source.close()

    @property
    def legs(self) -> tuple[Leg, ...]:
        return tuple(self._legs)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What wakes this driver."""
        return tuple(dict.fromkeys(s for leg in self._legs for s in (*leg.inputs, CONFIG)))

    def pulses(self) -> tuple[TaskPulse, ...]:
        """How each task stands; called by the pulse's own thread."""
        return tuple(
            TaskPulse(
                task=str(leg.task),
                epoch=leg.epoch,
                turns=leg.progress,
                backlog=leg.backlog() + self._waits_outside(leg),
                config=leg.config.version,
                step_started_us=leg.step_started_us,
            )
            for leg in self._legs
        )

    def _waits_outside(self, leg: Leg) -> int:
        """1 if something is due at the source and the way is free: without it, nobody would see that the first stage,
        or a fused worker, stands still, for nothing piles up behind it.
        """
        if leg.source is None or leg.starting or self._pressed:
            return 0
        return int(leg.source.due_in_s() == 0)
