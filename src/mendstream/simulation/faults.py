"""What each fault does to the simulated machine: one row a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Out
from mendstream.contracts.records import Closing, ConfigChange, Fault, Record, Scalar, decode_each, encode_block
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.runtime.ground import current_config
from mendstream.runtime.roster import ROLE_OF
from mendstream.simulation.bus import Fate
from mendstream.simulation.log import Writer
from mendstream.simulation.machine import SUPERVISOR, Machine, SimProcess

Params = Mapping[str, Any]
Act = Callable[[Machine, Params], None]
LOCK_WATCH_US = 1_250_000
"""The supervisor kills who holds a write lock for longer than a second; it looks four times a second."""


@dataclass(frozen=True, slots=True)
class SimFault:
    name: str
    doc: str
    put: Act
    take: Act | None = None
    """None: it is over at once."""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """Parameters with their defaults. A `target` is a process of the plan's house."""
    weight: float = 1.0
    """How often the swarm draws it, against the others."""
    said: bool = False
    """It is a record that ends it: a power cut or a full disk may take that, and the fault would stay for ever."""


# --- processes -------------------------------------------------------------------------------------------------------


def _target(machine: Machine, params: Params) -> SimProcess | None:
    return machine.processes.get(str(params["target"]))


def _kill(machine: Machine, params: Params) -> None:
    machine.kill(str(params["target"]))


def _freeze(machine: Machine, params: Params) -> None:
    held = _target(machine, params)
    if held is not None and held.name != SUPERVISOR:
        held.freeze()


def _thaw(machine: Machine, params: Params) -> None:
    held = _target(machine, params)
    if held is not None:
        held.thaw()


def _pause(machine: Machine, params: Params) -> None:
    held = _target(machine, params)
    if held is not None:
        held.main.hold()


def _unpause(machine: Machine, params: Params) -> None:
    held = _target(machine, params)
    if held is not None and not held.frozen:
        held.main.release()


def _crash_loop(machine: Machine, params: Params) -> None:
    """The next lives of the process end soon after they began."""
    name, lives = str(params["target"]), int(params["lives"])

    def again(left: int) -> None:
        machine.kill(name)
        if left > 1:
            machine.kernel.after(int(params["life_ms"]) * 1000, lambda: again(left - 1))

    again(lives)


def _reboot(machine: Machine, params: Params) -> None:
    """Everybody dies at once; people start the house again."""
    machine.stop()


def _power_cut(machine: Machine, params: Params) -> None:
    machine.stop()
    machine.log.cut_power()


def _double(machine: Machine, params: Params) -> None:
    """Somebody starts the same agent by hand, beside the house."""
    held = _target(machine, params)
    if held is not None and held.name != SUPERVISOR:
        machine.beside(held.name)


def _second_supervisor(machine: Machine, params: Params) -> None:
    """Another one claims the supervisor's task; the first learns it at its next word."""
    from mendstream.contracts.agent import TaskId
    from mendstream.simulation.machine import COMMANDS

    machine.log.claim(TaskId("supervisor", 0), [COMMANDS], Writer("supervisor-1", 1, machine.clock.now_us))


def _slow_start(machine: Machine, params: Params) -> None:
    machine.habits.start_us = (2_000_000, int(params["start_ms"]) * 1000)


def _usual_start(machine: Machine, params: Params) -> None:
    machine.habits.start_us = machine.usual.start_us


def _old_generation(machine: Machine, params: Params) -> None:
    machine.reborn.add(str(params["target"]))


def _new_generation(machine: Machine, params: Params) -> None:
    """Who was started so is ended: nobody can tell it from the one before, and it would count as dead for ever."""
    machine.reborn.discard(str(params["target"]))
    machine.kill(str(params["target"]))


# --- log and disk ----------------------------------------------------------------------------------------------------


def _fate(fate: Fate) -> Act:
    def put(machine: Machine, params: Params) -> None:
        machine.habits.fates[str(params["target"])] = (
            fate, float(params.get("chance", 1.0)), int(params.get("delay_ms", 0)) * 1000
        )  # fmt: skip

    return put


def _done(machine: Machine, params: Params) -> None:
    machine.habits.fates.pop(str(params["target"]), None)


def _cut_off(machine: Machine, params: Params) -> None:
    machine.cut.add(str(params["target"]))


def _reach_again(machine: Machine, params: Params) -> None:
    machine.cut.discard(str(params["target"]))


def _twice(machine: Machine, params: Params) -> None:
    machine.habits.twice[str(params["target"])] = float(params["chance"])


def _once(machine: Machine, params: Params) -> None:
    machine.habits.twice.pop(str(params["target"]), None)


def _slow_disk(machine: Machine, params: Params) -> None:
    machine.habits.slow_disk = float(params["times"])


def _usual_disk(machine: Machine, params: Params) -> None:
    machine.habits.slow_disk = machine.usual.slow_disk


def _full_disk(machine: Machine, params: Params) -> None:
    machine.log.full = machine.shelf.full = True


def _room(machine: Machine, params: Params) -> None:
    machine.log.full = machine.shelf.full = False


def _stop_with_lock(machine: Machine, params: Params) -> None:
    """A process is stopped while it holds the write lock of its wing: nobody else writes there."""
    held = _target(machine, params)
    if held is None or held.name == SUPERVISOR:
        return
    wing = ROLE_OF[held.name.rpartition("-")[0]].wing
    held.freeze()
    machine.locked[wing] = held

    def watch() -> None:
        if machine.locked.get(wing) is held:
            del machine.locked[wing]
            if not held.dead:
                machine.kill(held.name)

    machine.kernel.after(LOCK_WATCH_US, watch)


def _open_transaction(machine: Machine, params: Params) -> None:
    """Somebody's transaction stays open: what comes after it in the stream cannot be seen."""
    stream = Stream(Topic(str(params["topic"])), 0)
    machine.log.hidden[stream] = machine.log.bounds(stream)[1]


def _close_transaction(machine: Machine, params: Params) -> None:
    stream = Stream(Topic(str(params["topic"])), 0)
    machine.log.hidden.pop(stream, None)
    machine.log.ring(stream)


# --- the database ----------------------------------------------------------------------------------------------------


def _lock_store(machine: Machine, params: Params) -> None:
    machine.store.away = True


def _free_store(machine: Machine, params: Params) -> None:
    machine.store.away = False


def _slow_store(machine: Machine, params: Params) -> None:
    machine.habits.store_us = (int(params["least_ms"]) * 1000, int(params["most_ms"]) * 1000)


def _usual_store(machine: Machine, params: Params) -> None:
    machine.habits.store_us = machine.usual.store_us


# --- clocks ----------------------------------------------------------------------------------------------------------


def _clock_jump(machine: Machine, params: Params) -> None:
    """The machine's time is set; a house that runs does not see it, one that starts from now on does."""
    machine.wall.offset_us += int(params["by_ms"]) * 1000


# --- models and training ---------------------------------------------------------------------------------------------


def _slow_model(machine: Machine, params: Params) -> None:
    _say(machine, _fault(machine, "slow-model", params, on=True))


def _usual_model(machine: Machine, params: Params) -> None:
    _say(machine, _fault(machine, "slow-model", params, on=False))


def _bad_model(machine: Machine, params: Params) -> None:
    """A worse version is promoted by force."""
    config = current_config(machine.log)
    if config.model_version != "v2" and "v2" in machine.shelf.files:
        card = machine.card("v2")
        _change(machine, config, {"model_version": "v2", "model_digest": card.digest}, "chaos: bad-model")


def _torn_add(machine: Machine, params: Params) -> None:
    machine.shelf.torn = True


def _whole_add(machine: Machine, params: Params) -> None:
    machine.shelf.torn = False


def _live_file(machine: Machine) -> str | None:
    version = current_config(machine.log).model_version
    return version if version in machine.shelf.files else None


def _lose_model(machine: Machine, params: Params) -> None:
    """The live model's file is gone for a while; who runs has it in memory."""
    version = _live_file(machine)
    if version is not None:
        machine.aside[version] = machine.shelf.files.pop(version)


def _corrupt_model(machine: Machine, params: Params) -> None:
    version = _live_file(machine)
    if version is not None:
        machine.aside[version] = dict(machine.shelf.files[version])
        machine.shelf.corrupt(version)


def _restore_model(machine: Machine, params: Params) -> None:
    machine.shelf.files.update(machine.aside)
    machine.aside.clear()


def _slow_training(machine: Machine, params: Params) -> None:
    machine.habits.train_us = int(params["train_ms"]) * 1000


def _usual_training(machine: Machine, params: Params) -> None:
    machine.habits.train_us = machine.usual.train_us


def _regime(name: str) -> tuple[Act, Act]:
    def put(machine: Machine, params: Params) -> None:
        machine.regimes.append(name)

    def take(machine: Machine, params: Params) -> None:
        if name in machine.regimes:
            machine.regimes.remove(name)

    return put, take


# --- people ----------------------------------------------------------------------------------------------------------


def _pause_healing(machine: Machine, params: Params) -> None:
    _change(machine, current_config(machine.log), {"healing_paused": True}, "maintenance")


def _resume_healing(machine: Machine, params: Params) -> None:
    _change(machine, current_config(machine.log), {"healing_paused": False}, "maintenance is over")


def _promote_first(machine: Machine, params: Params) -> None:
    """A person promotes the first version by hand, whatever healing is about."""
    config = current_config(machine.log)
    if "v1" in machine.shelf.files:
        _change(
            machine, config, {"model_version": "v1", "model_digest": machine.card("v1").digest}, "I like the old one"
        )


def _low_threshold(machine: Machine, params: Params) -> None:
    """A person sets a threshold so low that the policy lets nobody lower it by a whole step."""
    _change(machine, current_config(machine.log), {"decision_threshold": float(params["value"])}, "misses cost more")


def _close_incident(machine: Machine, params: Params) -> None:
    """A person closes the newest incident, whatever it is about."""
    steps = [
        record
        for block in machine.log.read(Stream(Topic.INCIDENT_LOG, 0), 0, max_rows=1 << 30, max_bytes=1 << 40)
        for record in decode_each(Topic.INCIDENT_LOG, bytes(block.value))
    ]
    if steps and steps[-1] is not None:
        incident_id = getattr(steps[-1], "incident").incident_id  # noqa: B009 - of an IncidentStep
        _say(
            machine,
            Closing(id=_id(machine), incident_id=incident_id, actor="operator", reason="enough",
                    at_us=machine.clock.now_us()),
            Stream(Topic.POLICY_DECISIONS, 0),
        )  # fmt: skip


def _change(machine: Machine, config: LiveConfig, changes: dict[str, Any], reason: str) -> None:
    _say(
        machine,
        ConfigChange(
            id=_id(machine), base_version=config.version, changes=changes, actor="operator", reason=reason,
            at_us=machine.clock.now_us(), forced=True,
        ),
    )  # fmt: skip


def _fault(machine: Machine, name: str, params: Params, *, on: bool) -> Fault:
    return Fault(id=_id(machine), name=name, on=on, params=dict(params), actor="chaos", at_us=machine.clock.now_us())


def _say(machine: Machine, record: Record, stream: Stream = CONFIG) -> None:
    if not machine.log.full:
        machine.log.publish(
            [Out(stream, encode_block([record]), 1)], Writer("chaos", 1, machine.clock.now_us)
        )  # fmt: skip


def _id(machine: Machine) -> str:
    machine.count("chaos records")
    return f"{machine.log.incarnation}/chaos/0/{machine.counted['chaos records']}"


_TARGET: dict[str, Scalar] = {"target": "model-0"}
FAULTS: tuple[SimFault, ...] = (
    SimFault("dead-agent", "SIGKILL to a process.", _kill, None, _TARGET, 3.0),
    SimFault("stuck-agent", "SIGSTOP to a process; then SIGCONT.", _freeze, _thaw, _TARGET, 2.0),
    SimFault("paused-agent", "Its work stands still, its heart beats on.", _pause, _unpause, _TARGET, 2.0),
    SimFault("crash-loop", "A process dies again soon after each start.", _crash_loop, None,
             {"target": "model-0", "lives": 3, "life_ms": 900}),
    SimFault("slow-start", "Processes take seconds to start.", _slow_start, _usual_start, {"start_ms": 4000}),
    SimFault("old-generation", "A process is started again under the generation that it had.", _old_generation,
             _new_generation, _TARGET, 0.5),
    SimFault("double", "The same agent is started by hand beside the house.", _double, None, _TARGET),
    SimFault("second-supervisor", "Another supervisor takes over its task.", _second_supervisor, None, {}, 0.5),
    SimFault("dead-supervisor", "SIGKILL to the supervisor; everybody ends with it.", _reboot, None, {}, 0.5),
    SimFault("power-cut", "The machine loses power, and what was not synced.", _power_cut, None, {}, 0.5),
    SimFault("commit-lost", "Commits never arrive, and nobody says so.", _fate(Fate.LOST), _done,
             {"target": "model-0", "chance": 0.5}),
    SimFault("commit-late", "Commits arrive when the sender has given up.", _fate(Fate.LATE), _done,
             {"target": "model-0", "chance": 0.5, "delay_ms": 700}),
    SimFault("commit-orphaned", "Commits arrive when the sender is dead.", _fate(Fate.ORPHANED), _done,
             {"target": "model-0", "chance": 0.3, "delay_ms": 400}),
    SimFault("commit-unheard", "Commits are done, their answers lost.", _fate(Fate.UNHEARD), _done,
             {"target": "model-0", "chance": 0.5}),
    SimFault("commit-refused", "The disk answers a commit with an error.", _fate(Fate.REFUSED), _done,
             {"target": "model-0", "chance": 0.1}, 0.5),
    SimFault("cut-off", "A process cannot reach the log.", _cut_off, _reach_again, _TARGET, 1.5),
    SimFault("twice", "What a process publishes outside a turn arrives twice.", _twice, _once,
             {"target": "model-0", "chance": 0.5}),
    SimFault("slow-disk", "The log is many times as slow.", _slow_disk, _usual_disk, {"times": 40.0}),
    SimFault("full-disk", "No room for anything.", _full_disk, _room, {}, 0.5),
    SimFault("stopped-with-lock", "A process is stopped while it holds the write lock.", _stop_with_lock, None,
             _TARGET),
    SimFault("open-transaction", "An open transaction hides what comes after it.", _open_transaction,
             _close_transaction, {"topic": "features"}),
    SimFault("store-down", "The database refuses everybody.", _lock_store, _free_store),
    SimFault("store-slow", "Each transaction of the database takes long.", _slow_store, _usual_store,
             {"least_ms": 300, "most_ms": 1_500}),
    SimFault("clock-jump", "The machine's time is set.", _clock_jump, None, {"by_ms": 2000}),
    SimFault("slow-model", "Each call of the model takes longer.", _slow_model, _usual_model,
             {"call_ms": 350.0, "row_ms": 0.0}, 3.0, said=True),
    SimFault("bad-model", "A worse version is promoted by force.", _bad_model, None, {}, 3.0),
    SimFault("torn-add", "Of a new model, half of the file arrives.", _torn_add, _whole_add),
    SimFault("lost-model", "The live model's files are gone.", _lose_model, _restore_model),
    SimFault("corrupt-model", "The live model's file has another content.", _corrupt_model, _restore_model),
    SimFault("slow-training", "A training takes long.", _slow_training, _usual_training, {"train_ms": 8000}),
    SimFault("drift", "The population shifts, and the model is worse.", *_regime("drift"), {}, 3.0),
    SimFault("neutral-drift", "The population shifts, as easy to judge.", *_regime("neutral-drift")),
    SimFault("unit-change", "One column comes in another unit.", *_regime("unit-change")),
    SimFault("poison", "Events are malformed.", *_regime("poison")),
    SimFault("duplicates", "Events come again.", *_regime("duplicates")),
    SimFault("no-labels", "No ground truth comes in.", *_regime("no-labels")),
    SimFault("late-labels", "Ground truth comes late.", *_regime("late-labels")),
    SimFault("pause-healing", "A person pauses healing, and resumes it.", _pause_healing, _resume_healing, said=True),
    SimFault("promote-by-hand", "A person promotes a version, whatever healing is about.", _promote_first),
    SimFault("low-threshold", "A person sets a low threshold for decisions.", _low_threshold, None, {"value": 0.25},
             0.5),
    SimFault("close-by-hand", "A person closes the newest incident.", _close_incident, None, {}, 0.5),
)  # fmt: skip
FAULT_OF = {fault.name: fault for fault in FAULTS}
