"""A story in; a live picture on a terminal, else one plain line an event; at the end the table of times and the proof.

`render` is pure. With --json only the document goes to standard output, and the lines to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mendstream.contracts.agent import STAGES
from mendstream.contracts.records import IncidentStep, Status, TaskState, Vitals
from mendstream.demo import result
from mendstream.demo.accounting import Accounting
from mendstream.demo.scenario import STEPS, Attempt, Case, Ending, Story

_CARD = 20
"""Four of them stand beside each other on the narrowest usual terminal."""
_LINES = 5
"""Newest lines under the cards."""


class Screen(Protocol):
    """Where the story is shown."""

    def note(self, text: str) -> None: ...
    def step(self, step: IncidentStep) -> None: ...
    def show(self) -> None:
        """The story has gone on."""

    def end(self, counted: Accounting, memory: result.Memory, kept: str | None) -> None: ...


@contextmanager
def screen_for(story: Story, *, as_json: bool) -> Iterator[Screen]:
    """The picture on a terminal, lines elsewhere."""
    console = Console()
    if as_json:
        yield Lines(story, sys.stderr)
    elif console.is_terminal and not console.is_dumb_terminal:
        picture = Picture(story, console)
        try:
            yield picture
        finally:
            picture.close()
    else:
        yield Lines(story, sys.stdout)


# --- lines -----------------------------------------------------------------------------------------------------------


class Lines:
    """One line an event, each with the seconds since the start."""

    def __init__(self, story: Story, out: TextIO) -> None:
        self._story = story
        self._out = out

    def note(self, text: str) -> None:
        self._line(f"{_clock(self._story)}  {text}")

    def step(self, step: IncidentStep) -> None:
        self.note(told(step))

    def show(self) -> None:
        """Events have their lines already."""

    def end(self, counted: Accounting, memory: result.Memory, kept: str | None) -> None:
        self._line("")
        for line in (*aligned([result.HEADER, *result.rows(self._story)]), ""):
            self._line(line)
        for line in result.proof(self._story, counted, memory):
            self._line(line)
        self._line("")
        for line in aligned([("next:", *pair) for pair in result.next_commands(kept)]):
            self._line(line)

    def _line(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def told(step: IncidentStep) -> str:
    """One step in a line."""
    head = step.incident
    return f"{head.incident_id} {head.type} {step.step}: {step.text}"


# --- the picture -----------------------------------------------------------------------------------------------------


class Picture:
    """The whole screen, drawn anew at each step of the story."""

    def __init__(self, story: Story, console: Console) -> None:
        self._story = story
        self._console = console
        self._lines: list[str] = []
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def note(self, text: str) -> None:
        self._lines.append(f"{_clock(self._story)}  {text}")
        del self._lines[:-_LINES]

    def step(self, step: IncidentStep) -> None:
        self.note(told(step))

    def show(self) -> None:
        self._live.update(render(self._story, self._lines), refresh=True)

    def end(self, counted: Accounting, memory: result.Memory, kept: str | None) -> None:
        self._live.update(render(self._story), refresh=True)
        self.close()
        self._console.print(times(self._story))
        for line in result.proof(self._story, counted, memory):
            self._console.print(Text(line, style="bold green" if counted.exact else "bold red"))
        for command, why in result.next_commands(kept):
            self._console.print(Text.assemble("next: ", (command, "bold"), f"  {why}"))

    def close(self) -> None:
        self._live.stop()


def render(story: Story, lines: Sequence[str] = ()) -> RenderableType:
    """The story as it stands: what is going on, the pipeline, a card for each fault, the newest lines."""
    title = Text.assemble((f"{_clock(story)}  ", "dim"), (story.chapter, "bold"))
    newest = Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")
    return Group(title, strip(story.news.vitals), Columns(_cards(story), padding=(0, 0)), newest)


def strip(vitals: Vitals | None) -> RenderableType:
    """The four stages, and what they serve."""
    if vitals is None:
        return Panel("the pipeline is starting", title="pipeline", title_align="left")
    chain = Text(" > ").join([_stage(name, vitals) for name in STAGES])
    accuracy = "no labels yet" if vitals.accuracy is None else f"{vitals.accuracy:.3f}"
    ratio = max((row.psi / row.limit for row in vitals.drift if row.limit > 0), default=None)
    drift = "measuring" if ratio is None else f"{max(ratio, 0):.2f} of its limit"
    safe = vitals.mode != "NORMAL"
    served = Text.assemble(
        f"{vitals.rate:.0f} events/s   p95 ", (f"{vitals.p95_ms:.0f} ms", "red" if vitals.p95_ms > 300 else ""),
        f"   accuracy {accuracy}   drift {drift}   ",
        (f"mode {vitals.mode}", "bold yellow" if safe else "green"), f"   model {vitals.model or '-'}",
    )  # fmt: skip
    return Panel(Group(chain, served), title="pipeline", title_align="left")


def _stage(name: str, vitals: Vitals) -> Text:
    """A stage with its state in words where it is not well: colour only repeats it."""
    mine = [task for task in vitals.tasks if task.task.startswith(f"{name}/")]
    worst = next((task.state for task in mine if task.state is not TaskState.OK), None)
    waiting = sum(task.backlog for task in mine)
    text = Text(name, style="green" if worst is None and mine else "bold red")
    if worst is not None:
        text.append(f" {worst}")
    if waiting >= 10:
        text.append(f" ({waiting} waiting)", style="yellow")
    return text


def _cards(story: Story) -> list[RenderableType]:
    begun = {attempt.row.name: attempt for attempt in story.attempts}
    return [card(begun.get(name), name) for name in story.faults]


def card(attempt: Attempt | None, name: str) -> RenderableType:
    """One fault: the seven steps of its incident, each with the seconds since the fault went in."""
    case = attempt.case if attempt else None
    lines = [_step_line(step, case, attempt.onset_us if attempt else None) for step in STEPS]
    return Panel(
        Text("\n").join(lines), title=name, title_align="left", subtitle=_subtitle(attempt), subtitle_align="right",
        border_style=_border(attempt), width=_CARD, padding=0,
    )  # fmt: skip


def _step_line(name: str, case: Case | None, onset_us: int | None) -> Text:
    at = done_at(name, case)
    if at is not None and onset_us is not None:
        return Text(f"✓ {name:<12}{(at - onset_us) / 1e6:4.1f}", style="green", no_wrap=True)
    begun = case is not None and any(step.step == name for step in case.steps)
    return Text(f"… {name}", style="yellow") if begun else Text(f"· {name}", style="dim")


def done_at(name: str, case: Case | None) -> int | None:
    """When the step was first done. Verification is done only once it has proven the incident's end."""
    if case is None:
        return None
    if name == "verification":
        return case.head.resolved_at_us if case.head.status is Status.RESOLVED else None
    return next((step.at_us for step in case.steps if step.step == name and not step.data.get("way_back")), None)


def _subtitle(attempt: Attempt | None) -> str:
    if attempt is None:
        return "to come"
    if attempt.ending is not None:
        return str(attempt.ending)
    return attempt.case.head.status if attempt.case else "hurt"


def _border(attempt: Attempt | None) -> str:
    if attempt is None or attempt.ending is Ending.SKIPPED:
        return "dim"
    if attempt.ending is None:
        return "yellow"
    return "green" if attempt.ending.good else "red"


def times(story: Story) -> RenderableType:
    """Times since each fault went in, beside those of the original request."""
    table = Table(title="from fault to proof", title_justify="left")
    for column in result.HEADER:
        table.add_column(column, no_wrap=column != result.HEADER[-1])
    for row in result.rows(story):
        table.add_row(*row)
    return table


def _clock(story: Story) -> str:
    return f"{(story.now_us - story.started_us) / 1e6:5.1f} s"
