"""What a planted bug is: a switch outside the product's code, and the plans under which it has to be caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from mendstream.chaos.plan import Plan

Patch = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    invariant: str
    """Name of the one that has to catch it."""
    doc: str
    """What is wrong with the house."""
    patch: Patch
    """While it is entered, the house has the bug."""
    plan: Callable[[int], Plan] | None = None
    """seed -> a plan that leads to the seam; None: the swarm's plan of that seed."""


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while. The owner is whoever looks the name up: the module that imported it."""
    held = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, held)
