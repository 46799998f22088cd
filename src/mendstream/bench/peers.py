"""What a decision costs in mendstream and in what others use for the same job, on the same broker, one core each.

The job: a departure as a JSON record from a topic, the mean of the plane's last four delays, an ONNX model, a JSON
record out. Each worker's code is in benchmarks/peers, written as its own documentation advises. Whoever does not decide
exactly what was reckoned has no figure, and neither has who cannot be installed here: it is named, with the reason.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

import mendstream
from mendstream.bench import ground, homes
from mendstream.bench.broker import Broker, broker
from mendstream.bench.figures import Figure, Report
from mendstream.bench.kafka import Spent
from mendstream.bench.sources import STOCK, stock
from mendstream.bench.tally import ANSWER_S, Reader, Tally, model, reading, reckoned, tally
from mendstream.contracts.errors import CouldNot
from mendstream.demo import pipeline
from mendstream.demo.scenario import FIRST_MODELS
from mendstream.runtime.ground import prepare

ROOT = Path(mendstream.__file__).parents[2]
"""Of a checkout: an installed mendstream has no peers beside it."""
PEERS = ROOT / "benchmarks" / "peers"
HOMES = ROOT / "build" / "peers"
MODEL = FIRST_MODELS / "v1" / "model.onnx"
RATES = Path(pipeline.__file__).parent / "data" / "rates.json"
STILL_S = 30.0
"""A worker that has decided nothing for so long will decide nothing more."""
END_S = 30.0
FLUSH_S = 60.0
MOST_LINES = 25
NOTE = (
    "CPU is of the worker's process, from a full topic to the last decision, after the warm-up named above; the "
    "broker's is not in it. Records, model, core and reader are the same for all; topics have one partition, records "
    "their plane as key. Lines: of user code, without blank lines, comments and docstrings."
)


class Job(NamedTuple):
    """What a worker is told."""

    servers: str
    group: str
    source: str
    target: str
    folder: Path
    """Its own, for state on disk."""

    @property
    def words(self) -> tuple[str, ...]:
        return (self.servers, self.group, self.source, self.target, str(MODEL), str(RATES), str(self.folder))


class Peer(NamedTuple):
    """One way to do the job."""

    name: str
    code: str
    """Its user's own code, in PEERS."""
    guarantee: str
    command: Callable[[Job], tuple[str, ...]]
    """What starts it; installs it before. Raises homes.Missing."""
    least: float
    """How many times our CPU per event it must cost."""
    warm: int = 20_000
    """Events decided before the window begins."""

    @property
    def figure(self) -> str:
        return self.name.replace("-", "_")


def _quix(job: Job) -> tuple[str, ...]:
    return (str(homes.python(PEERS / "quix", HOMES / "quix")), str(PEERS / "quix" / "worker.py"), *job.words)


def _faststream(job: Job) -> tuple[str, ...]:
    interpreter = homes.python(PEERS / "faststream", HOMES / "faststream")
    return (str(interpreter), str(PEERS / "faststream" / "worker.py"), *job.words[:-1])


def _kafka_streams(job: Job) -> tuple[str, ...]:
    runs, *rest = homes.java(PEERS / "kafka-streams", HOMES / "kafka-streams", "Worker")
    return (runs, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *rest, *job.words)


def _by_hand(job: Job) -> tuple[str, ...]:
    worker = PEERS / "handwritten" / "worker.py"
    return (sys.executable, str(worker), *job.words[:4], f"{job.group}.changes", str(MODEL), str(RATES))


OTHERS = (
    Peer("hand-written", "handwritten/worker.py", "exactly once", _by_hand, least=1.0),
    # A JVM on one core compiles for half a minute; before, its figure would not be fair to it.
    Peer("kafka-streams", "kafka-streams/Worker.java", "exactly once", _kafka_streams, least=3.0, warm=600_000),
    Peer("quix", "quix/worker.py", "exactly once", _quix, least=14.0),
    Peer("faststream", "faststream/worker.py", "at least once", _faststream, least=10.0),
)
OURS = "mendstream/pipeline.py"
OUR_WARM = 20_000


class Outcome(NamedTuple):
    """Of one worker in one run. `why`: what kept it from a figure."""

    spent: Spent | None
    tally: Tally | None = None
    why: str = ""


def measure(runs: int, note: Callable[[str], None], *, servers: str) -> Report:
    if not PEERS.exists():
        raise CouldNot("bench: there is no benchmarks/peers here", hint="run it in a checkout of the repository")
    missing = {peer.name: why for peer in OTHERS if (why := _missing(peer))}
    for name, why in missing.items():
        note(f"not run: {name}, because {why}")
    found: dict[str, list[Outcome]] = {name: [] for name in ("mendstream", *(peer.name for peer in OTHERS))}
    for n in range(runs):
        for name, outcome in _run(servers, [peer for peer in OTHERS if peer.name not in missing]):
            found[name].append(outcome)
            note(f"run {n + 1} of {runs}: {name}: {told(outcome)}")
    return report(found, missing)


def _missing(peer: Peer) -> str:
    """Why it cannot run here; empty if it can."""
    try:
        peer.command(Job("", "", "", "", Path()))
    except homes.Missing as error:
        return f"{error}; {error.hint}"
    return ""


def _run(servers: str, others: Sequence[Peer]) -> Iterator[tuple[str, Outcome]]:
    yield "mendstream", _outcome(partial(_ours, servers))
    for peer in others:
        yield peer.name, _outcome(partial(_other, servers, peer))


def _outcome(work: Callable[[], Outcome]) -> Outcome:
    """A worker that ends in the middle shall not hide the figures of the others."""
    try:
        return work()
    except CouldNot as error:
        return Outcome(None, why=str(error))


def told(outcome: Outcome) -> str:
    if outcome.spent is None:
        return f"no figure: {outcome.why}"
    return f"{outcome.spent.cpu_us:.2f} us an event ({outcome.spent.events_per_s:,.0f}/s), {outcome.tally}"


# --- figures ---------------------------------------------------------------------------------------------------------


def report(found: dict[str, list[Outcome]], missing: dict[str, str]) -> Report:
    """Whoever did not run has None where a bound is wanted, so that no bound is reached."""
    runs = len(found["mendstream"])
    none = [Outcome(None, why=f"not run: {name}") for name in missing for _ in range(runs)]
    ours = found["mendstream"]
    figures = _figures_of("mendstream", "mendstream, fused", OURS, ours, most_lines=MOST_LINES)
    for peer in OTHERS:
        theirs = found[peer.name] or none[:runs]
        figures[f"{peer.figure}_ratio"] = Figure(
            what=f"CPU per event: {peer.name} over mendstream", unit="", least=peer.least,
            runs=tuple(_ratio(a, b) for a, b in zip(theirs, ours, strict=True)),
        )  # fmt: skip
        figures |= _figures_of(peer.figure, f"{peer.name}, {peer.guarantee}", peer.code, theirs)
    failed = {
        f"{name}, run {n + 1}": outcome.why
        for name, outcomes in found.items() for n, outcome in enumerate(outcomes) if outcome.why
    }  # fmt: skip
    warm = {"mendstream": OUR_WARM, **{peer.name: peer.warm for peer in OTHERS}}
    details = {"not_run": missing, "failed": failed, "warm_up_events": warm, "events": STOCK, "note": NOTE}
    return Report(bench="peers", figures=figures, details=details)


def _figures_of(
    name: str, what: str, code: str, outcomes: Sequence[Outcome], most_lines: float | None = None
) -> dict[str, Figure]:
    spent = [outcome.spent for outcome in outcomes]
    wrong = tuple(None if outcome.tally is None else float(sum(outcome.tally)) for outcome in outcomes)
    lines = float(lines_of_code((PEERS / code).read_text(), Path(code).suffix))
    return {
        f"{name}_cpu_us_per_event": Figure(what=what, unit="us", runs=tuple(s.cpu_us if s else None for s in spent)),
        f"{name}_events_per_s": Figure(what=f"{what}, wall", unit="events/s",
                                       runs=tuple(s.events_per_s if s else None for s in spent)),
        f"{name}_wrong": Figure(what=f"{what}: wrong decisions, or none", unit="events", runs=wrong, most=0),
        f"{name}_lines": Figure(what=f"lines of {code}", unit="lines", runs=(lines,), most=most_lines),
    }  # fmt: skip


def _ratio(theirs: Outcome, ours: Outcome) -> float | None:
    if theirs.spent is None or ours.spent is None:
        return None
    return theirs.spent.cpu_us / ours.spent.cpu_us


def lines_of_code(text: str, suffix: str) -> int:
    """Lines with something on them that is no comment and no docstring."""
    return len(_java_lines(text) if suffix == ".java" else _python_lines(text))


def _python_lines(text: str) -> set[int]:
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _java_lines(text: str) -> set[int]:
    """Of a file whose comments have lines of their own."""
    lines, within = set(), False
    for number, line in enumerate(text.splitlines()):
        word = line.strip()
        within = within or word.startswith("/*")
        if word and not within and not word.startswith("//"):
            lines.add(number)
        within = within and not word.endswith("*/")
    return lines


# --- the workers -----------------------------------------------------------------------------------------------------


def _ours(servers: str) -> Outcome:
    """Only the pipeline's process runs: nothing watches or heals."""
    with broker(servers) as own, ground.folder() as root:
        source = own.make("flights", 1)
        house = own.holds(ground.settings(root / "house", fuse=True, source=f"kafka:{source}"))
        house = msgspec.structs.replace(house, pipeline="pipeline:flights")
        prepare(house)
        worker = _Worker(ground.command("agent", "fused"), ground.environment(house), PEERS / "mendstream", root)
        return _window(own, source, own.decisions, worker, OUR_WARM)


def _other(servers: str, peer: Peer) -> Outcome:
    with broker(servers) as own, ground.folder() as root, _cleared(own):
        group = own.cluster.topic("peer")
        source, target, _ = own.make("flights", 1), own.make("out", 1), own.make("peer.changes", 1)
        command = peer.command(Job(servers, group, source, target, root))
        return _window(own, source, target, _Worker(command, ground.one_thread(), root, root), peer.warm)


@contextlib.contextmanager
def _cleared(own: Broker) -> Iterator[None]:
    """Without the topics that a framework has made for itself, at the end."""
    try:
        yield
    finally:
        admin = own.cluster.admin()
        names = [name for name in admin.list_topics(timeout=ANSWER_S).topics if own.cluster.namespace in name]
        for future in admin.delete_topics(names, operation_timeout=ANSWER_S).values():
            future.result()


class _Worker:
    """A process on one core, with all its threads; what it says goes to a file in `root`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path, root: Path) -> None:
        self._said = root / "said.txt"
        with self._said.open("wb") as said, _on_one_core():
            self.process = subprocess.Popen(
                command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def check(self) -> None:
        """Raises CouldNot if it has ended."""
        code = self.process.poll()
        if code is not None:
            said = self._said.read_text(errors="replace").strip().splitlines() or ["without a word"]
            raise CouldNot(f"it ended with code {code}: {said[-1]}", hint="run the bench alone")


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """Processes that this thread starts within inherit its one core, and so do their threads."""
    if sys.platform != "linux":
        raise CouldNot("bench: this system pins no process to a core", hint="run it on Linux")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _window(own: Broker, source: str, target: str, worker: _Worker, warm: int) -> Outcome:
    """From a full topic to the last decision; then every decision is read and compared."""
    lines = [*_warming(warm), *(line.value for line in stock())]
    with worker, reading(own.cluster.servers, target) as reader:
        _fill(own, source, lines[:warm])
        _wait(reader.more, warm, worker)
        worker.process.send_signal(signal.SIGSTOP)  # so that the topic is full when it begins
        _fill(own, source, lines[warm:])
        first = _look(reader, worker)
        worker.process.send_signal(signal.SIGCONT)
        # The marks of transactions count as well, so this ends a little before the last decision.
        _wait(lambda: sum(reader.ends()), sum(first.ends) + STOCK, worker)
        last = _look(reader, worker)
        _wait(reader.more, len(lines), worker)
        worker.kill()
        reader.to_the_end(END_S)
    counted = tally(reckoned(lines, json.loads(RATES.read_bytes()), model(MODEL)), reader.found)
    if not counted.exact:
        return Outcome(None, counted, f"not exact: {counted}")
    events = sum(first.ends[read.partition] <= read.offset < last.ends[read.partition] for read in reader.found)
    return Outcome(Spent(events, last.at - first.at, last.cpu_s - first.cpu_s), counted)


def _warming(count: int) -> list[bytes]:
    """Events before those of the window, with ids of their own."""
    lines = stock()
    return [b'{"id":"w%d",%b' % (n, lines[n % len(lines)].value.partition(b",")[2]) for n in range(count)]


class _Tail(msgspec.Struct):
    tailnum: str


def _fill(own: Broker, topic: str, lines: Sequence[bytes]) -> None:
    """With the plane as key: frameworks keep their state by it."""
    key = msgspec.json.Decoder(_Tail).decode
    producer = own.cluster.producer(**{"linger.ms": 50})
    for line in lines:
        while True:
            try:
                producer.produce(topic, line, key(line).tailnum)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    if producer.flush(FLUSH_S):
        raise CouldNot("bench: the broker does not take the events", hint="is it overloaded?")


def _wait(so_far: Callable[[], int], wanted: int, worker: _Worker) -> None:
    """Until there are so many, or until no more come: what is missing then is counted later."""
    most, since = -1, time.monotonic()
    while (now := so_far()) < wanted:
        worker.check()
        if now > most:
            most, since = now, time.monotonic()
        elif time.monotonic() - since > STILL_S:
            return
        time.sleep(0.01)


class _Look(NamedTuple):
    ends: list[int]
    at: float
    cpu_s: float


def _look(reader: Reader, worker: _Worker) -> _Look:
    cpu = ground.cpu_told_s([worker.process])
    return _Look(reader.ends(), time.perf_counter(), cpu)
