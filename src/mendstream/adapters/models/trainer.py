"""The trainer sink: RETRAIN commands come in; a model version in the catalogue and one CommandResult each go out.

How models are learnt and where they are kept comes in by port. MLflow is no business of the trainer's (see
registrar.py), so a slow store costs no healing time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import structlog

from mendstream import __version__
from mendstream.adapters.models.harvest import Harvest, Rows, when
from mendstream.adapters.models.learning import ROWS_MIN
from mendstream.adapters.models.registrar import LiveModel
from mendstream.contracts.agent import TaskId
from mendstream.contracts.errors import BadRecord, ModelError
from mendstream.contracts.models import Catalogue, Learner, ModelCard
from mendstream.contracts.ports import Block, Bus, Claim, Clock, Out, TaskCommit
from mendstream.contracts.records import (
    Command,
    CommandKind,
    CommandResult,
    DeadLetter,
    DeadReason,
    Outcome,
    Record,
    Scalar,
    decode,
    encode_block,
)
from mendstream.contracts.topics import Stream, Topic

ACTION_FILE = "action.json"
COMMANDS = Stream(Topic.COMMANDS, 0)
RESULTS = Stream(Topic.COMMAND_RESULTS, 0)
_DEAD = Stream(Topic.DEAD_LETTERS, 1)
_READ_BYTES = 1 << 20

_log = structlog.get_logger("trainer")


class RetrainParams(msgspec.Struct, frozen=True, kw_only=True):
    """`Command.params` of a RETRAIN."""

    since_us: int
    """Only rows served from this log time on."""
    min_rows: Annotated[int, msgspec.Meta(ge=ROWS_MIN)] = 1500
    max_rows: Annotated[int, msgspec.Meta(ge=ROWS_MIN)] = 20_000
    """The newest so many."""
    deadline_s: Annotated[float, msgspec.Meta(ge=0)] = 15.0
    """How long after the command to wait for `min_rows` labelled rows."""


class ActionNote(msgspec.Struct, frozen=True, kw_only=True):
    """Beside the model that an action made: what a repeated command is answered with."""

    action_id: str
    command_id: str
    data: dict[str, Scalar]


@dataclass(slots=True)
class _Order:
    """The command that is being carried out."""

    command: Command
    params: RetrainParams
    live: ModelCard
    harvest: Harvest


class Trainer:
    """`contracts.ports.Sink`. One process."""

    name = "trainer"
    reads = (COMMANDS,)

    def __init__(
        self,
        bus: Bus,
        catalogue: Catalogue,
        learner: Learner,
        clock: Clock,
        *,
        stopwatch: Callable[[], float],
        partitions: int,
        seed: int = 0,
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """`stopwatch`: seconds, to time a training with. `trouble`: of the registrar beside it, for people."""
        self._bus = bus
        self._catalogue = catalogue
        self._learner = learner
        self._clock = clock
        self._stopwatch = stopwatch
        self._partitions = partitions
        self._seed = seed
        self._trouble = trouble
        self._claim: Claim | None = None
        self._order: _Order | None = None
        self._live = LiveModel(bus)

    @property
    def waits_for(self) -> str:
        return self._trouble()

    def pump(self) -> bool:
        """Carry out the next command; True if one was answered."""
        claim = self._claim or self._bus.claim(TaskId(self.name, 0), self.reads)
        self._claim = claim
        at = claim.positions[COMMANDS]
        outs: list[Out] | None = []
        while outs == [] and (blocks := self._bus.read(COMMANDS, at, max_rows=1, max_bytes=_READ_BYTES)):
            outs = self._answer(blocks[0])
            if outs is not None:
                at = blocks[0].next
        if at == claim.positions[COMMANDS]:
            return False
        self._finish(claim, at, outs or [])
        return bool(outs)

    def close(self) -> None:
        self._learner.rest()

    # --- commands ----------------------------------------------------------------------------------------------------

    def _finish(self, claim: Claim, at: int, outs: list[Out]) -> None:
        """Results and position in one transaction: a command is answered once, whatever crashes."""
        commit = TaskCommit(
            task=claim.task,
            epoch=claim.epoch,
            turn=claim.turns + 1,
            positions={COMMANDS: at},
            before={COMMANDS: claim.positions[COMMANDS]},
            outputs=outs,
        )
        self._bus.commit([commit])
        claim.turns += 1
        claim.positions[COMMANDS] = at

    def _answer(self, block: Block) -> list[Out] | None:
        """What to publish for one row; None: not yet."""
        line = bytes(block.value).rstrip(b"\n")
        try:
            record = decode(Topic.COMMANDS, line)
        except BadRecord as error:
            return [Out(_DEAD, encode_block([self._dead(block, line, error)]), 1)]
        result = self._result(record)
        if result is not None:
            self._order = None
            self._learner.rest()
            return [Out(RESULTS, encode_block([result]), 1)]
        return None if self._order is not None else []

    def _result(self, record: Record) -> CommandResult | None:
        match record:
            case Command(addressee=self.name, kind=CommandKind.RETRAIN):
                try:
                    return self._retrain(record)
                except ModelError as error:
                    _log.warning("retraining failed", action=record.action_id, reason=str(error), hint=error.hint)
                    return self._say(record, Outcome.FAILED, f"{error}; {error.hint}".removesuffix("; "))
            case Command(addressee=self.name):
                return self._say(record, Outcome.REFUSED, f"the trainer knows no {record.kind}")
        return None

    def _retrain(self, command: Command) -> CommandResult | None:
        """The result, or None while labelled rows are still awaited. Raises ModelError."""
        if self._order is None:
            done = self._effect_of(command.action_id)
            if done is not None:
                _log.info("command repeated, its model is there", action=command.action_id, **done)
                return self._say(command, Outcome.DONE, f"{done['version']} was trained before", done)
            try:
                self._order = self._begin(command)
            except msgspec.ValidationError as error:
                return self._say(command, Outcome.REFUSED, f"params of {command.id}: {error}")
        order = self._order
        rows = order.harvest.rows()
        if rows is not None:
            return self._train(order, rows)
        if self._clock.now_us() < command.at_us + order.params.deadline_s * 1e6:
            return None
        raise ModelError(
            f"too few labels: {order.harvest.count()} labelled rows since {when(order.params.since_us)}, "
            f"{order.params.min_rows} are needed, and the deadline of {order.params.deadline_s:g} s has passed",
            hint="is feedback arriving? wait for more of it, or lower min_rows",
        )

    def _begin(self, command: Command) -> _Order:
        params = msgspec.convert(command.params, RetrainParams)
        live = self._live_card()
        harvest = Harvest(
            self._bus,
            self._partitions,
            live.features,
            since_us=params.since_us,
            rows_min=params.min_rows,
            rows_max=max(params.max_rows, params.min_rows),
        )
        self._learner.prepare()
        return _Order(command, params, live, harvest)

    def _train(self, order: _Order, rows: Rows) -> CommandResult:
        started = self._stopwatch()
        live = order.live
        trained = self._learner.fit(rows.matrix, rows.labels, live.features, self._seed, live=live)
        measured = self._against(live, rows)
        card = msgspec.structs.replace(trained.parts, metrics={**trained.metrics, **measured}).card(
            version=self._catalogue.next_version(),
            created_at_us=self._clock.now_us(),
            data_window=rows.window,
            data_from_us=rows.from_us,
            data_until_us=rows.until_us,
        )
        data: dict[str, Scalar] = {
            "version": card.version,
            "accuracy": trained.metrics["accuracy"],
            **measured,
            "rows": card.rows,
            "data_from_us": rows.from_us,
            "data_until_us": rows.until_us,
            "schema_ok": card.features == live.features,
            "seconds": round(self._stopwatch() - started, 3),
        }
        note = ActionNote(action_id=order.command.action_id, command_id=order.command.id, data=data)
        card = self._catalogue.add(trained.onnx, card, {ACTION_FILE: msgspec.json.encode(note)})
        data["digest"] = card.digest
        _log.info("retrained", action=order.command.action_id, unreadable=order.harvest.unreadable, **data)
        return self._say(order.command, Outcome.DONE, f"{card.version} trained on {card.data_window}", data)

    def _against(self, live: ModelCard, rows: Rows) -> dict[str, float]:
        """How the live model does on the rows that were held out from the new one: a gate of promotion."""
        try:
            onnx = self._catalogue.model(live.version, live.digest)
            return {"accuracy_live": self._learner.accuracy(onnx, live, rows.matrix, rows.labels)}
        except ModelError as error:
            _log.warning("the live model cannot be compared with", version=live.version, reason=str(error))
            return {}

    def _effect_of(self, action_id: str) -> dict[str, Scalar] | None:
        """What to say of the version that this action made, if it did."""
        for version in reversed(self._catalogue.versions()):
            text = self._catalogue.note(version, ACTION_FILE)
            try:
                note = msgspec.json.decode(text, type=ActionNote) if text is not None else None
            except msgspec.DecodeError as error:
                _log.warning("unreadable note beside a model", version=version, name=ACTION_FILE, reason=str(error))
                continue
            if note is not None and note.action_id == action_id:
                return {**note.data, "digest": self._catalogue.fetch(version).digest}
        return None

    def _live_card(self) -> ModelCard:
        """The card of what config-updates say is live."""
        version = self._live.version()
        if not version:
            raise ModelError("no model is live, so its features are unknown", hint="`mendstream models promote` one")
        return self._catalogue.fetch(version)

    def _say(
        self, command: Command, outcome: Outcome, detail: str, data: dict[str, Scalar] | None = None
    ) -> CommandResult:
        return CommandResult(
            id=f"{command.id}/result",
            command_id=command.id,
            action_id=command.action_id,
            incident_id=command.incident_id,
            outcome=outcome,
            detail=detail,
            data=data or {},
            at_us=self._clock.now_us(),
        )

    def _dead(self, block: Block, line: bytes, error: BadRecord) -> DeadLetter:
        return DeadLetter(
            id=f"{self._bus.incarnation}/{self.name}/0/{block.position}",
            topic=COMMANDS.topic,
            partition=0,
            position=block.position,
            stage=self.name,
            code_version=__version__,
            reason=DeadReason.MALFORMED,
            detail=str(error)[:1024],
            attempts=1,
            value=line,
            at_us=self._clock.now_us(),
        )
