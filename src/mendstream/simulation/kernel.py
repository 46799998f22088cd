"""Virtual time: a heap of (time, sequence, callback), and strands, which run real code and can be suspended anywhere.

A strand is a greenlet: it looks like a thread to the code on it, but exactly one runs, until it asks for time to pass.
So production code runs unchanged, and a seed decides what comes between any two of its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Kernel:
    """Times are microseconds since 1970."""

    def __init__(self, start_us: int) -> None:
        self.now_us = start_us
        self.events = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.current: Strand | None = None
        """Whose code runs now."""
        self._hub = getcurrent()
        self._until_us = start_us
        """How far time may go without a look at the heap; not at all while `run` is asked when to stop."""

    def at(self, when_us: int, call: Callable[..., None], *args: Any) -> None:
        """Run `call` at that time; what is due at the same time runs in the order of the asking."""
        self._sequence += 1
        heappush(self._heap, (max(when_us, self.now_us), self._sequence, call, args))

    def after(self, us: int, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now_us + us, call, *args)

    def run(self, until_us: int, stop: Callable[[], bool] | None = None) -> None:
        """Events up to that time, or until `stop` says so, asked after each."""
        self._hub = getcurrent()
        self._until_us = until_us if stop is None else self.now_us
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            if stop is not None and stop():
                return
            self.now_us, _, call, args = heappop(heap)
            self.events += 1
            call(*args)
        if stop is None or not stop():
            self.now_us = max(self.now_us, until_us)

    def passed(self, us: int) -> bool:
        """Let so much time pass at once, if nothing else is due by then: what a switch to the hub and back would do."""
        then = self.now_us + us
        if then > self._until_us or (self._heap and self._heap[0][0] <= then):
            return False
        self.now_us = then
        self.events += 1
        return True

    def strand(self, body: Callable[[], None], ended: Callable[[BaseException | None], None]) -> Strand:
        """Runs `body` from the next event on; `ended` hears how it ended, but not that it was killed."""
        strand = Strand(self, body, ended)
        self.after(0, strand.begin)
        return strand

    @property
    def hub(self) -> greenlet:
        return self._hub


class Strand:
    """Code in progress. Of itself it can only sleep and park; others wake, hold, release and kill it."""

    def __init__(
        self, kernel: Kernel, body: Callable[[], None], ended: Callable[[BaseException | None], None]
    ) -> None:  # fmt: skip
        self._kernel = kernel
        self._body = body
        self._ended = ended
        self._green = greenlet(self._run)
        self._ticket = 0
        """Of the present wait: a wake-up that bears an older one comes too late."""
        self._waiting = False
        self._woken = False
        self.held = False
        self._missed = False
        """Something wanted to go on while it was held."""
        self.dead = False

    # --- called on the strand ----------------------------------------------------------------------------------------

    def sleep(self, us: int) -> None:
        if self.dead or self.held or not self._kernel.passed(us):
            self._suspend(us, wakeable=False)

    def park(self, timeout_us: int | None) -> bool:
        """Until somebody wakes it, or time is up; True if it was woken."""
        return self._suspend(timeout_us, wakeable=True)

    def _suspend(self, us: int | None, *, wakeable: bool) -> bool:
        if self.dead:
            raise GreenletExit
        assert getcurrent() is self._green, "only the strand itself can wait"
        self._ticket += 1
        ticket, self._woken, self._waiting = self._ticket, False, wakeable
        if us is not None:
            self._kernel.after(us, self._go, ticket)
        self._kernel.hub.switch()
        self._waiting = False
        return self._woken

    # --- called by others --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._ticket += 1
        self._go(self._ticket)

    def wake(self) -> None:
        """End a park; nothing, if it is not parked."""
        if self._waiting and not self._woken:
            self._woken = True
            self._kernel.after(0, self._go, self._ticket)

    @property
    def parked(self) -> bool:
        """It waits to be woken, or for its time to be up."""
        return self._waiting and not self.dead

    def hold(self) -> None:
        """Stop it where it is, as SIGSTOP does."""
        self.held = True

    def release(self) -> None:
        if not self.held:
            return
        self.held = False
        if self._missed:
            self._missed = False
            self._kernel.after(0, self._go, self._ticket)

    def kill(self) -> None:
        """It never goes on. Nothing that it does on its way out reaches the world: see SimWorld.alive."""
        if self.dead:
            return
        self.dead = True
        if getcurrent() is not self._green:  # else it ends at its next wait
            self._kernel.after(0, self._bury)

    def _go(self, ticket: int) -> None:
        if self.dead or ticket != self._ticket:
            return
        if self.held:
            self._missed = True
            return
        self._green.parent = self._kernel.hub
        self._kernel.current = self
        self._green.switch()
        self._kernel.current = None

    def _bury(self) -> None:
        self._green.parent = self._kernel.hub
        if self._green:  # suspended somewhere
            self._green.throw(GreenletExit)

    def _run(self) -> None:
        try:
            self._body()
        except GreenletExit:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it was, the simulated process ends with it
            self.dead = True
            self._ended(error)
        else:
            self.dead = True
            self._ended(None)
