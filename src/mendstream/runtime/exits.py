"""Exit codes of the house's processes: what a worker ends with, and the supervision knows."""

from __future__ import annotations

from mendstream.contracts.errors import CommitUnknown, Conflict, Fenced, LogFull, MendstreamError

BUG, COULD_NOT, FENCED, FULL = 1, 3, 4, 5


def exit_code(error: BaseException | None) -> int:
    """Of a process that ended with `error`."""
    match error:
        case None:
            return 0
        case Fenced() | CommitUnknown() | Conflict():
            return FENCED  # what it knows may be out of date: it starts again
        case LogFull():
            return FULL
        case MendstreamError():
            return COULD_NOT
    return BUG  # the turn was not finished; the supervisor starts it again
