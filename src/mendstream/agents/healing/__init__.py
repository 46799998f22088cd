"""Healing: alerts and vitals in; proposals, config changes, commands and the incident log out.

In here: the table of incidents and the seven steps over it, playbooks (what to do, in which order, and how a cure is
known), and memory. LangGraph is imported by `graph` alone. Nothing in here reads a clock or touches the world.
"""

from mendstream.agents.healing.agent import HealingAgent
from mendstream.agents.healing.params import HealingParams

__all__ = ["HealingAgent", "HealingParams"]
