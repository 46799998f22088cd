"""Objects in a process of their own: what scikit-learn and MLflow take, the house has only while they are at work."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from mendstream.adapters.models.registrar import MadeWay
from mendstream.adapters.models.registry import Registry, hidden, is_server, refusal
from mendstream.contracts.errors import CouldNot, MendstreamError, ModelError
from mendstream.contracts.models import Array, ModelCard, Trained

if TYPE_CHECKING:  # its imports are what is kept apart
    from mendstream.adapters.models.catalogue import Catalogue
    from mendstream.adapters.models.training import SklearnLearner

ANSWER_S = 120.0
"""A call that takes longer is stuck: its process is killed."""
POLITE_ANSWER_S = 900.0
"""Being polite on a busy machine takes its time, and MLflow's own time limits are short."""
KNOCK_S = 5.0
_BY_PROXY = {"http_proxy", "https_proxy", "all_proxy"}
"""With one of these in the environment the server may well be out of our own reach."""
_UNWANTED = ("numpy", "pyarrow")
"""MLflow imports them where they are and works without: 18 MB less, at the house's peak of memory."""
_LOOK_S = 0.1
_POLITE = 10
_PR_SET_PDEATHSIG = 1


class Turn:
    """Whose process is there: one at a time, so the house grows by the largest and not by their sum."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urgent = threading.Event()

    @property
    def wanted(self) -> bool:
        """By somebody more urgent: whoever has it makes way."""
        return self._urgent.is_set()

    def take(self, *, urgent: bool) -> None:
        if urgent:
            self._urgent.set()
        self._lock.acquire()
        if urgent:
            self._urgent.clear()

    def leave(self) -> None:
        self._lock.release()


class Apart:
    """An object whose methods run in another process, from the first call to `close`."""

    def __init__(self, make: Callable[[], object], turn: Turn, *, urgent: bool, answer_s: float = ANSWER_S) -> None:
        """`make`: makes the object, over there. Not `urgent`: polite to all others, and makes way."""
        self._make = make
        self._turn = turn
        self._urgent = urgent
        self._answer_s = answer_s
        self._process: Any = None
        self._link: Connection | None = None
        self._unheard = 0

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        return self._process.pid if self._link is not None else None

    def call(self, method: str, *args: object, **named: object) -> Any:
        """What the method returns, or the MendstreamError that it raises.

        CouldNot if its process did not answer, MadeWay if somebody more urgent wanted the turn.
        """
        link = self._link or self._start()
        with self._alive():
            while self._unheard:
                self._answer(link)
                self._unheard -= 1
            link.send((method, args, named))
            error, value = self._answer(link)
        if error is not None:
            raise error
        return value

    def begin(self, method: str) -> None:
        """As `call`, without waiting; nobody hears the answer."""
        link = self._link or self._start()
        with self._alive():
            link.send((method, (), {}))
        self._unheard += 1

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._link is None:
            return
        self._link.close()
        self._link = None
        self._unheard = 0
        self._process.kill()
        self._process.join()
        self._process.close()
        self._turn.leave()

    def _start(self) -> Connection:
        self._turn.take(urgent=self._urgent)
        context = multiprocessing.get_context("spawn")  # forking would take the threads' locks along
        ours, theirs = context.Pipe()
        nice = 0 if self._urgent else _POLITE
        self._process = context.Process(target=_serve, args=(theirs, self._make, nice), name="apart", daemon=True)
        try:
            self._process.start()
        except OSError as error:
            ours.close()
            self._turn.leave()
            raise CouldNot(f"no process for it: {error.strerror}", hint="is there enough memory?") from error
        finally:
            theirs.close()
        self._link = ours
        return ours

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Within, an end of the process is a refusal."""
        try:
            yield
        except (EOFError, OSError) as gone:
            self._process.join(1)
            how = f"the process for it ended with code {self._process.exitcode}"
            raise self._closed(CouldNot(how, hint="is there enough memory?")) from gone

    def _answer(self, link: Connection) -> tuple[Any, Any]:
        """(error, value)"""
        limit = time.monotonic() + self._answer_s
        while not link.poll(_LOOK_S):
            if self._turn.wanted and not self._urgent:
                raise self._closed(MadeWay("made way for a training"))
            if time.monotonic() > limit:
                raise self._closed(CouldNot(f"no answer within {self._answer_s:g} s", hint="is the machine too busy?"))
        return cast("tuple[Any, Any]", link.recv())

    def _closed(self, error: CouldNot) -> CouldNot:
        self.close()
        return error


def _serve(link: Connection, make: Callable[[], object], nice: int) -> None:
    """The body of the process: answers calls until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever called ends it
    if sys.platform == "linux":  # elsewhere the closed link ends it, after the call that it is in
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(nice)
    with contextlib.suppress(EOFError, OSError):
        held = None
        while True:
            method, args, named = link.recv()
            held = make() if held is None else held
            link.send(_done(held, method, args, named))


def _done(held: object, method: str, args: Sequence[object], named: dict[str, object]) -> tuple[Any, Any]:
    """(error, value)"""
    try:
        return None, getattr(held, method)(*args, **named)
    except MendstreamError as error:
        return error, None
    except Exception as error:  # noqa: BLE001 - the last door of this process: the caller has to hear of it
        return CouldNot(hidden(f"a bug: {error!r}"), hint=hidden(traceback.format_exc())), None


# --- what is kept apart ----------------------------------------------------------------------------------------------


class LearnerApart:
    """`contracts.models.Learner`, with a process from `prepare`, or the first call, to `rest`."""

    def __init__(self, turn: Turn) -> None:
        self._there = Apart(_learner, turn, urgent=True)

    def prepare(self) -> None:
        with _as_model_error():
            self._there.begin("prepare")

    def rest(self) -> None:
        self._there.close()

    def fit(
        self, matrix: Array, labels: Array, features: Sequence[str], seed: int, *, live: ModelCard | None = None
    ) -> Trained:
        with _as_model_error():
            return cast(Trained, self._there.call("fit", matrix, labels, tuple(features), seed, live=live))

    def accuracy(self, onnx: bytes, card: ModelCard, matrix: Array, labels: Array) -> float:
        with _as_model_error():
            return cast(float, self._there.call("accuracy", onnx, card, matrix, labels))


@contextlib.contextmanager
def _as_model_error() -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except CouldNot as error:
        raise ModelError(str(error), hint=error.hint) from error


def _learner() -> SklearnLearner:
    from mendstream.adapters.models.training import SklearnLearner

    return SklearnLearner()


class RegistryApart:
    """`registrar.Told`: a Registry in a process of its own, until `close`."""

    def __init__(self, turn: Turn, directory: Path, *, uri: str, name: str) -> None:
        self._uri = uri
        self._there = Apart(
            functools.partial(_registry, directory, uri=uri, name=name), turn, urgent=False, answer_s=POLITE_ANSWER_S
        )

    def known(self) -> dict[tuple[str, str], str]:
        return cast("dict[tuple[str, str], str]", self._call("known"))

    def register(self, catalogue: Catalogue, card: ModelCard) -> str:
        return cast(str, self._call("register", catalogue, card))

    def alias(self, alias: str, card: ModelCard) -> bool:
        return cast(bool, self._call("alias", alias, card))

    def close(self) -> None:
        self._there.close()

    def _call(self, method: str, *args: object) -> object:
        """No process is started for a server that is not there."""
        if self._there.pid is None and is_server(self._uri) and not _BY_PROXY.intersection(map(str.lower, os.environ)):
            _knock(self._uri)
        return self._there.call(method, *args)


def _knock(uri: str) -> None:
    """Raises CouldNot if nobody listens."""
    there = urlsplit(uri)
    port = there.port or (443 if there.scheme == "https" else 80)
    try:
        socket.create_connection((there.hostname or "", port), timeout=KNOCK_S).close()
    except OSError as error:
        raise refusal(uri, str(error)) from error


def _registry(directory: Path, *, uri: str, name: str) -> Registry:
    for unwanted in _UNWANTED:
        sys.modules.setdefault(unwanted, cast(Any, None))  # to Python: not installed
    return Registry(directory, uri=uri, name=name)
