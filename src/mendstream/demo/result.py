"""A told story, the accounting and the memory samples in; one document for programs and a table for people out."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mendstream.contracts.records import ActionRow, AlertKind
from mendstream.demo.accounting import Accounting
from mendstream.demo.scenario import CONTROL_S, Attempt, Case, Story

EXPECTED: dict[str, str] = {
    AlertKind.LATENCY_SLO_BREACH: "15-30 s",
    AlertKind.PERF_DROP: "20-40 s",
    AlertKind.AGENT_DOWN: "10-20 s",
    AlertKind.DATA_DRIFT: "30-60 s",
}
"""Time to recover in the original request."""


class Memory(threading.Thread):
    """The peak of what all processes of the house take together: proportional set sizes, so shared pages count once.

    The LMDB maps are pages of the log's files, which the kernel takes back at will: they are kept apart.
    """

    EVERY_S = 1.0
    """A look costs 60 ms of CPU for a dozen processes: twice as often would slow what it looks at."""

    def __init__(self) -> None:
        super().__init__(name="memory", daemon=True)
        self.peak_mb: float | None = None
        """Without the maps; None where the system does not tell (no /proc)."""
        self.lmdb_map_mb: float | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        while sys.platform == "linux" and not self._ended.wait(self.EVERY_S):
            self.take([_read(f"/proc/{pid}/smaps") for pid in family(os.getpid())])

    def take(self, smaps: Sequence[bytes]) -> None:
        """Look at the mappings of all processes."""
        total = sum(int(kb) for text in smaps for kb in _PSS.findall(text))
        maps = sum(_maps_kb(text) for text in smaps)
        self.lmdb_map_mb = max(self.lmdb_map_mb or 0.0, maps * 1024 / 1e6)
        self.peak_mb = max(self.peak_mb or 0.0, (total - maps) * 1024 / 1e6)

    def stop(self) -> None:
        self._ended.set()
        self.join(5)


def family(pid: int) -> list[int]:
    """`pid` and all of its descendants."""
    found = [pid]
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += family(int(child))
    except OSError:  # it ended meanwhile
        pass
    return found


_PSS = re.compile(rb"^Pss: +(\d+) kB", re.MULTILINE)


def _maps_kb(smaps: bytes) -> int:
    at, total = 0, 0
    while (at := smaps.find(b"/data.mdb\n", at)) >= 0:
        found = _PSS.search(smaps, at)
        total += int(found[1]) if found else 0
        at += 1
    return total


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it ended meanwhile
        return b""


# --- the document ----------------------------------------------------------------------------------------------------


def document(story: Story, accounting: Accounting, memory: Memory) -> dict[str, Any]:
    return {
        "scenarios": [scenario(attempt) for attempt in story.attempts],
        "control": {
            "seconds": round(story.control_s, 3),
            "incidents": story.control_incidents,
        },
        "accounting": {
            "events": accounting.events,
            "decisions": accounting.decisions,
            "dead_letters": accounting.dead_letters,
            "missing": accounting.missing,
            "duplicated": accounting.duplicated,
            "repeats_dropped": accounting.repeats_dropped,
            "first": accounting.first,
            "missing_examples": list(accounting.missing_examples),
            "duplicated_examples": list(accounting.duplicated_examples),
        },
        "start": {
            "first_decision_s": _since(story.started_us, story.first_decision_us),
            "first_healed_s": _since(story.started_us, story.first_healed_us),
        },
        "memory_mb": _rounded(memory.peak_mb),
        "lmdb_map_mb": _rounded(memory.lmdb_map_mb),
        "good": good(story, accounting),
    }


def scenario(attempt: Attempt) -> dict[str, Any]:
    case, onset = attempt.case, attempt.onset_us
    return {
        "fault": attempt.row.name,
        "incident_type": case.head.type if case else attempt.row.incident_type,
        "status": str(attempt.ending) if attempt.ending else "INTERRUPTED",
        "onset_to_detected_s": _since(onset, case.head.detected_at_us if case else None),
        "onset_to_acted_s": _since(onset, case.acted_at_us if case else None),
        "onset_to_verified_s": _since(onset, case.head.resolved_at_us if case else None),
        "actions": actions(case) if case else [],
        "extra": [{"incident_type": other.head.type, "subject": other.head.subject, "status": other.head.status,
                   "onset_to_detected_s": _since(onset, other.head.detected_at_us)} for other in attempt.extra],
    }  # fmt: skip


def actions(case: Case) -> list[dict[str, Any]]:
    return [
        {"action": row.proposed_action.kind.value, "verdict": row.agl_decision, "result": row.result}
        for row in case.actions.values()
    ]


def good(story: Story, accounting: Accounting) -> bool:
    """Every fault ended as it has to, nothing happened before the first one, and every event was decided once."""
    ended = len(story.attempts) == len(story.faults) and all(a.ending and a.ending.good for a in story.attempts)
    watched = story.control_until_us is not None and story.control_s >= CONTROL_S and not story.control_incidents
    return story.over and ended and watched and accounting.exact


# --- for people ------------------------------------------------------------------------------------------------------

HEADER = ("fault", "status", "detected", "acted", "verified", "brief", "what was done")


def rows(story: Story) -> list[tuple[str, ...]]:
    """The table of times, from fault onset."""
    return [
        (
            attempt.row.name,
            str(attempt.ending or "INTERRUPTED"),
            *(_seconds(at, attempt.onset_us) for at in _times(attempt.case)),
            EXPECTED.get(attempt.row.incident_type or "", "-"),
            ", ".join(done(row) for row in attempt.case.actions.values()) if attempt.case else "-",
        )
        for attempt in story.attempts
    ]


def done(row: ActionRow) -> str:
    """An action in a word or two."""
    word = {"SUCCESS": "", "FAIL": " (failed)", None: " (under way)"}[row.result]
    denied = " (denied)" if row.agl_decision == "DENIED" else word
    kind = row.proposed_action.kind.value.lower().replace("_", " ")
    return f"{'undo: ' if row.is_undo else ''}{kind}{denied}"


def proof(story: Story, accounting: Accounting, memory: Memory) -> list[str]:
    """What stands under the table."""
    start = _since(story.started_us, story.first_decision_us)
    healed = _since(story.started_us, story.first_healed_us)
    peak = "" if memory.peak_mb is None else f"; peak memory of all processes {memory.peak_mb:.0f} MB"
    apart = "" if memory.lmdb_map_mb is None else f" (and {memory.lmdb_map_mb:.0f} MB of the log's files mapped)"
    verdict = "no event was lost, none decided twice" if accounting.exact else "NOT EXACT"
    return [
        f"proof: {verdict}. {accounting.text} (counted by a reader that shares no code with the pipeline)",
        f"control: {story.control_incidents} incidents in {story.control_s:.1f} s before the first fault",
        f"start: first decision after {_shown(start)}, first healed incident after {_shown(healed)}{peak}{apart}",
    ]


def next_commands(kept: str | None) -> Sequence[tuple[str, str]]:
    """(command, what it shows)."""
    if kept is None:
        return (
            ("mendstream demo --data demo-house", "keep the next run, to look inside"),
            ("mendstream init my-pipeline", "start a pipeline of your own"),
            ("mendstream doctor", "see what this machine can do"),
        )
    return (
        (f"mendstream incidents --data {kept}", "every incident with its steps"),
        (f"mendstream models history --data {kept}", "which model was live when"),
        ("mendstream init my-pipeline", "start a pipeline of your own"),
    )


def _times(case: Case | None) -> tuple[int | None, int | None, int | None]:
    return (case.head.detected_at_us, case.acted_at_us, case.head.resolved_at_us) if case else (None, None, None)


def _seconds(at_us: int | None, onset_us: int | None) -> str:
    return _shown(_since(onset_us, at_us))


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _since(from_us: int | None, at_us: int | None) -> float | None:
    return None if at_us is None or from_us is None else round((at_us - from_us) / 1e6, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
