"""The errors of the house in one small tree. What can happen in a healthy house is a record, not one of these.

MendstreamError            what failed; its `hint` says what to do
├── UsageError             the caller asked for something that does not exist (exit code 2)
│   └── SettingsError      a setting is unknown, of a wrong type or out of bounds: mend the named line
├── CouldNot               the world refused: a port, a file, a lock, a backend (exit code 3)
│   ├── DataDirError       the data directory is of another version, in use, read-only or torn
│   ├── LogFull            disk or map full: nothing was lost; make room and start again
│   ├── TooLarge           the log takes no message of this size: a turn of fewer rows may do
│   ├── NoAnswer           a server does not answer now: ask again
│   ├── NotLetIn           a database does not let us in: user, password, database or rights are wrong
│   └── ModelError         a model file is missing, corrupt, or wants other inputs
├── Fenced                 another owner has this task: the process must stop, its turn is void
├── Conflict               the log moved under a fused turn: poll again
├── CommitUnknown          nobody knows whether a turn was committed: claim again, and go on from what the log has
├── BadRecord              bytes that are not a record of their topic: to dead-letters
└── IllegalMove            not in MOVES: a bug in a graph node
"""

from __future__ import annotations


class MendstreamError(Exception):
    """What failed, in one line; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(MendstreamError):
    """Asked for something that does not exist: see `hint` for what does."""


class SettingsError(UsageError):
    """A setting is unknown, of a wrong type or out of bounds: mend the named place."""


class CouldNot(MendstreamError):
    """The world refused; the same command may work once the hint is followed."""


class DataDirError(CouldNot):
    """The data directory is of another version, in use, read-only or torn."""


class LogFull(CouldNot):
    """Disk or map full. The turn was not finished and nothing is lost: make room and start again."""


class TooLarge(CouldNot):
    """The log takes no message of this size. Nothing of the turn was written: one of fewer rows may do."""


class NoAnswer(CouldNot):
    """A server does not answer now, and nothing was changed: ask again."""


class NotLetIn(CouldNot):
    """A database refuses our user, password or rights, or there is no such database: mend what is named."""


class ModelError(CouldNot):
    """A model file is missing, corrupt, or wants other inputs than the pipeline's features."""


class Fenced(MendstreamError):
    """Another owner holds this task: stop, this turn is void and will be done by the owner."""


class Conflict(MendstreamError):
    """The log moved under a fused turn: nothing was written, poll again."""


class CommitUnknown(MendstreamError):
    """The log did not answer: the turn may be done, or be done yet. A new claim fences it and tells what is true."""


class BadRecord(MendstreamError):
    """Bytes that are not a record of their topic: they go to dead-letters as they are."""


class IllegalMove(MendstreamError):
    """A move that is not in MOVES: a bug in a graph node."""
