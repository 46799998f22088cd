"""The LangGraph graph: its shape, and that it is entered for news only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from langgraph.graph import END, START
from tests.unit.healing.house import House

import mendstream.agents.healing as healing
from mendstream.agents.healing import graph, nodes
from mendstream.agents.healing.ending import END as OUR_END
from mendstream.contracts.incident import Phase


def test_the_graph_has_a_node_for_each_of_the_seven_steps_and_one_for_undo():
    assert list(graph.NODES) == ["detect", "log", "plan", "approve", "execute", "verify", "undo", "remember"]
    drawn = graph.graph().get_graph()
    assert set(drawn.nodes) == {START, END, *graph.NODES}
    assert OUR_END == END


def test_every_phase_has_its_node():
    house = House().healthy(1)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    incident = house.incident
    for phase in Phase:
        incident.phase = phase
        assert nodes.entry(incident) in graph.NODES


def test_only_one_module_imports_langgraph_and_the_package_without_it():
    folder = Path(healing.__file__).parent
    importing = [path.name for path in folder.rglob("*.py") if "langgraph." in path.read_text()]
    assert importing == ["graph.py"]
    code = "import sys, mendstream.agents.healing; sys.exit('langgraph' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_vitals_that_decide_nothing_do_not_enter_the_graph(monkeypatch):
    entered = []
    run = graph.run
    monkeypatch.setattr(graph, "run", lambda turn, incident: (entered.append(incident.phase), run(turn, incident)))
    house = House().healthy()
    assert entered == []
    house.panes(2, slow=90, ms=900.0)
    house.feed(house.alert("LATENCY_SLO_BREACH"))
    assert entered == ["DETECTED"] * 2  # `feed` does every step twice
    del entered[:]
    house.approve()
    house.pane()
    assert entered == ["PLANNED", "PLANNED", "EXECUTING", "EXECUTING"]
    del entered[:]
    house.panes(7)
    assert entered == []
    house.pane()
    assert entered == ["VERIFYING"] * 2
