"""A house around the healing agent: literal records in, its answers folded back, every step done twice.

`feed` runs each step on two copies of the encoded state, as after a kill before the commit, and wants the same from
both; the state then goes on from bytes, as after a kill behind it.
"""

from __future__ import annotations

import msgspec

from mendstream.agents.healing import HealingAgent, HealingParams, chain
from mendstream.agents.healing.state import HealingState
from mendstream.contracts import hashes, knobs
from mendstream.contracts import state as plain
from mendstream.contracts.agent import Batch
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import (
    Alert,
    AlertKind,
    AlertState,
    Closing,
    Command,
    CommandResult,
    ConfigChange,
    DriftVital,
    IncidentStep,
    Outcome,
    Proposal,
    Served,
    Status,
    TaskState,
    TaskVital,
    Verdict,
    VerdictKind,
    Vitals,
    encode,
)

START = 1_700_000_000_000_000
PANE = 250_000
SECOND = 1_000_000
FEATURES = ("dep_delay", "distance")


class House:
    def __init__(self, *, partitions=2, **params):
        self.agent = HealingAgent(params=HealingParams(**params))
        self.state = self.agent.start(0)
        self.now = START
        self.config = LiveConfig()
        self.turns = 0
        self.coming: list[ConfigChange] = []  # in the log, not yet read
        self.totals: dict[tuple, list] = {}
        self.probe = [0, 0]
        self.tasks = {}
        self.drift: dict[str, tuple[float, int]] = {}
        for p in range(partitions):
            for agent in ("model", "decision"):
                self.own(f"{agent}/{p}", f"{agent}-{p}", 1)
        self.steps: list[IncidentStep] = []
        self.proposals: list[Proposal] = []
        self.changes: list[ConfigChange] = []
        self.commands: list[Command] = []
        self.wake = None
        self.backlog = 0

    # --- the world -------------------------------------------------------------------------------------------------

    def own(self, task, process, generation, *, state=TaskState.OK, backlog=0):
        turns = self.tasks[task].turns if task in self.tasks else 0
        self.tasks[task] = TaskVital(
            task=task, process=process, generation=generation, pid=100 + generation, epoch=generation, turns=turns,
            backlog=backlog, config=0, pulse_age_ms=10, state=state,
        )  # fmt: skip

    def down(self, process):
        for task, held in list(self.tasks.items()):
            if held.process == process:
                self.own(task, process, held.generation, state=TaskState.DOWN, backlog=50)

    def up(self, process, generation):
        for task, held in list(self.tasks.items()):
            if held.process == process:
                self.own(task, process, generation)

    def serve(self, n, *, slow=0, ms=10.0, labels=0, errors=0, arm=None, model=None, task=None, config=None):
        """Add to the totals of each decision task."""
        arm = arm or ("fallback" if self.config.safe_mode else "live")
        model = model or self.config.model_version
        config = self.config.version if config is None else config
        names = [task] if task else [name for name, held in self.tasks.items() if name.startswith("decision/")]
        for name in names:
            if self.tasks.get(name) is not None and self.tasks[name].state is not TaskState.OK:
                continue
            row = self.totals.setdefault((name, model, config, arm), [0, 0, 0.0, 0, 0])
            for i, value in enumerate((n, slow, n * ms, labels, errors)):
                row[i] += value

    def vitals(self) -> Vitals:
        pane = self.now // PANE - 1
        served = tuple(
            Served(task=t, model=m, config=c, arm=a, n=r[0], slow=r[1], latency_ms_sum=r[2], labels=r[3], errors=r[4])
            for (t, m, c, a), r in self.totals.items()
        )
        probes = (
            Served(
                task="model/0", model=self.config.model_version, config=self.config.version, arm="probe",
                n=self.probe[0], slow=self.probe[1], latency_ms_sum=0.0,
            ),
        )  # fmt: skip
        tasks = tuple(
            msgspec.structs.replace(held, config=self.config.version, turns=held.turns + (held.state is TaskState.OK))
            for held in self.tasks.values()
        )
        self.tasks = {held.task: held for held in tasks}
        drift = tuple(
            DriftVital(feature=f, model=m, n=n, psi=psi, ks=psi / 2, js=psi / 4, limit=0.1)
            for m, (psi, n) in self.drift.items()
            for f in FEATURES
        )
        return Vitals(
            pane=pane, at_us=self.now, n=200, rate=800.0, p50_ms=8.0, p95_ms=20.0, mode=self.config.mode.value,
            model=self.config.model_version, config=self.config.version, accuracy=0.8, labels=500,
            backlog=self.backlog, served=served, probes=probes, tasks=tasks, drift=drift,
        )  # fmt: skip

    def vitals_at(self, now) -> Vitals:
        self.now = now
        return self.vitals()

    # --- turning ---------------------------------------------------------------------------------------------------

    def feed(self, *records, at=None, resumed=False):
        """One turn: what waits in config-updates comes with it. `resumed`: it is the first one of a new owner."""
        if at is not None:
            self.now = at
        changes, self.coming = self.coming, []
        for change in changes:
            self.config, _ = knobs.fold(self.config, change)
        self.turns += 1
        batch = Batch(
            turn=f"i/healing/0/{self.turns}", partition=0, config=self.config, records=[*records, *changes],
            resumed=resumed,
        )  # fmt: skip
        before = plain.encode(self.state)
        state, outputs = self.agent.step(plain.decode(before, HealingState), batch, self.now)
        again, repeated = self.agent.step(plain.decode(before, HealingState), batch, self.now)
        assert [encode(r) for r in outputs.records] == [encode(r) for r in repeated.records]
        assert plain.encode(state) == plain.encode(again)
        assert outputs.wake_at_us == repeated.wake_at_us
        self.state = plain.decode(plain.encode(state), HealingState)
        assert plain.encode(self.state) == plain.encode(state)
        self.wake = outputs.wake_at_us
        assert self.wake is None or self.wake > self.now
        for record in outputs.records:
            match record:
                case IncidentStep():
                    self.steps.append(record)
                case Proposal():
                    self.proposals.append(record)
                case ConfigChange():
                    self.changes.append(record)
                    self.coming.append(record)
                case Command():
                    self.commands.append(record)
                case _:
                    raise AssertionError(record)
        assert chain.broken(self.steps) is None
        return outputs.records

    def pane(self, n=100, **kwargs):
        """A quarter of a second of serving, and its vitals."""
        self.now = (self.now // PANE + 1) * PANE
        for change in self.coming:  # what was published before is in force by now
            self.config, _ = knobs.fold(self.config, change)
        if n:
            self.serve(n, **kwargs)
        config, coming = self.config, self.coming
        vitals = self.vitals()
        self.coming, self.config = coming, config
        return self._feed_folded(vitals)

    def _feed_folded(self, vitals):
        changes, self.coming = self.coming, []
        return self.feed(vitals, *changes)

    def panes(self, count, n=100, **kwargs):
        for _ in range(count):
            self.pane(n, **kwargs)

    def operator(self, **changes):
        """Somebody else's change, in the log before ours."""
        self.coming.insert(
            0,
            ConfigChange(
                id=f"op/{self.turns}", base_version=self.config.version, changes=changes, actor="anna", reason="test",
                at_us=self.now,
            ),
        )  # fmt: skip

    # --- records ---------------------------------------------------------------------------------------------------

    def alert(self, kind, subject="model", *, id_="a1", state=AlertState.FIRING, value=0.9, limit=0.05, **evidence):
        return Alert(
            id=f"{id_}/{state}", alert_id=id_, kind=AlertKind(kind), subject=subject, state=state, detector="test",
            statistic="statistic", value=float(value), limit=float(limit), n=300,
            window_us=(self.now - SECOND, self.now),
            at_us=self.now, evidence=evidence,
        )  # fmt: skip

    def verdict(self, kind="APPROVED", *, proposal=None, actor="policy", action=None, **changes):
        asked = proposal or self.proposals[-1]
        action = action or asked.action
        return Verdict(
            **{
                "id": f"v/{self.turns}/{kind}/{actor}", "proposal_id": asked.id, "incident_id": asked.incident_id,
                "action_id": asked.action.id, "verdict": VerdictKind(kind), "action": action,
                "plan_hash": hashes.plan_hash(action), "policies": ("p1",), "reason": "because", "facts": {"n": 1},
                "actor": actor, "at_us": self.now, "expires_at_us": self.now + 30 * SECOND, **changes,
            }
        )  # fmt: skip

    def result(self, outcome="done", detail="", **data):
        command = self.commands[-1]
        return CommandResult(
            id=f"{command.id}/result", command_id=command.id, action_id=command.action_id,
            incident_id=command.incident_id, outcome=Outcome(outcome), detail=detail, data=data, at_us=self.now,
        )  # fmt: skip

    def closing(self, incident_id, reason="enough"):
        return Closing(id=f"c/{self.turns}", incident_id=incident_id, actor="anna", reason=reason, at_us=self.now)

    # --- looking ---------------------------------------------------------------------------------------------------

    def healthy(self, seconds=15, versions=("v1",), *, n=100, labels=50, errors=10):
        """Models go live one after the other; then calm."""
        for version in versions:
            self.operator(model_version=version, model_digest=f"d-{version}")
            self.feed()
            self.panes(int(seconds * 4), n, labels=labels, errors=errors)
        return self

    def approve(self, kind="APPROVED", **kwargs):
        return self.feed(self.verdict(kind, **kwargs))

    @property
    def head(self):
        return self.steps[-1].incident

    @property
    def incident(self):
        (found,) = [held for held in self.state.incidents.values() if held.back is None]
        return found

    @property
    def open(self):
        return [held for held in self.state.incidents.values() if held.back is None]

    @property
    def back(self):
        (found,) = [held for held in self.state.incidents.values() if held.back is not None]
        return found

    def row(self, action_id):
        """The newest row of an action."""
        return [step.action for step in self.steps if step.action and step.action.action_id == action_id][-1]

    def texts(self, step=None):
        return [held.text for held in self.steps if step is None or held.step == step]

    def ended(self, status=Status.RESOLVED, outcome="mitigated"):
        return [s for s in self.steps if s.step == "memory" and s.incident.status is status
                and s.incident.outcome == outcome]  # fmt: skip
