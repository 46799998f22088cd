"""Every playbook in one tuple. Order: where two incidents want the same target in one turn, the first one gets it.

A new playbook is its file and its row here.
"""

from mendstream.agents.healing.playbooks.accuracy import ACCURACY
from mendstream.agents.healing.playbooks.agent_down import AGENT_DOWN
from mendstream.agents.healing.playbooks.base import Playbook, Rung
from mendstream.agents.healing.playbooks.drift import DRIFT
from mendstream.agents.healing.playbooks.latency import LATENCY
from mendstream.agents.healing.playbooks.way_back import WAY_BACK
from mendstream.agents.healing.state import Incident

PLAYBOOKS: tuple[Playbook, ...] = (AGENT_DOWN, LATENCY, ACCURACY, DRIFT)

_BY_KIND = {playbook.answers: playbook for playbook in PLAYBOOKS}


def playbook_of(incident: Incident) -> Playbook | None:
    """The playbook that `incident` follows; None for a kind that no playbook answers."""
    return WAY_BACK if incident.back else _BY_KIND.get(incident.kind)


def rung_of(incident: Incident) -> Rung | None:
    """The present rung; None if the ladder has no more."""
    playbook = playbook_of(incident)
    if playbook is None:
        return None
    rung = 0 if incident.back else incident.rung - 1
    return playbook.rungs[rung] if rung < len(playbook.rungs) else None


__all__ = ["PLAYBOOKS", "WAY_BACK", "Playbook", "playbook_of", "rung_of"]
