"""Planted bugs of healing, governance, config and watching."""

from __future__ import annotations

from mendstream.simulation.bugs.base import Bug

BUGS: tuple[Bug, ...] = ()
