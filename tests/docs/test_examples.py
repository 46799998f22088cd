"""The code that the how-to pages show does what they say."""

import sys
import tomllib
from types import ModuleType

import numpy as np
import pytest
from tests.docs.pages import ROOT, blocks, name_of, written_pages

from mendstream.agents.healing.playbooks.base import Playbook
from mendstream.agents.monitoring.settings import JudgeSettings
from mendstream.agents.monitoring.view import PaneView
from mendstream.agents.monitoring.watch import Watch
from mendstream.agents.policy import load_policies, run_cases
from mendstream.agents.policy.policies import shipped, shipped_cases
from mendstream.contracts.records import LATENCY_EDGES_MS, PANE_US, AlertKind

HOW_TO = ROOT / "docs" / "how-to"
NOW = 1_700_000_000_000_000


def code(page, language="python", place=0):
    return [text for kind, text in blocks(HOW_TO / page) if kind == language][place]


@pytest.fixture
def loaded(monkeypatch):
    """The first Python block of a page as a module."""

    def load(page):
        module = ModuleType("example")
        monkeypatch.setitem(sys.modules, "example", module)
        exec(compile(code(page), page, "exec"), module.__dict__)
        return module

    return load


@pytest.mark.parametrize("path", written_pages(), ids=name_of)
def test_code_blocks_are_python_and_toml(path):
    for language, text in blocks(path):
        if language == "python" and not text.startswith("def step(self"):
            compile(text, name_of(path), "exec")
        if language == "toml":
            tomllib.loads(text)


def pane(pane_number, decided, backlog):
    latency = np.zeros(len(LATENCY_EDGES_MS) + 1, dtype=np.int64)
    latency[0] = decided
    return PaneView(
        pane=pane_number, now=NOW, watch=Watch(), latency=latency, model_ms=latency * 0, model="v1", backlog=backlog,
        card=None, labels=(0, 0), drift=None,
    )  # fmt: skip


def test_the_example_of_a_detector_fires_on_silence_and_ends_with_the_first_decision(loaded):
    detector = loaded("write-a-detector.md").Silence().tuned(JudgeSettings())
    state, firing = detector.start(), []
    for number in range(25):
        state, findings = detector.step(state, pane(number, 0, backlog=10), NOW + number * PANE_US)
        firing.append(findings[0].firing)
    assert firing.index(True) == 19
    state, findings = detector.step(state, pane(25, 100, backlog=10), NOW)
    assert not findings[0].firing


def test_the_example_of_a_playbook_is_a_ladder(loaded):
    playbook = loaded("write-a-playbook.md").FEWER
    assert isinstance(playbook, Playbook)
    assert playbook.answers == AlertKind.LATENCY_SLO_BREACH
    assert [rung.name for rung in playbook.rungs] == ["higher threshold", "safe mode"]


def test_the_example_of_a_policy_passes_its_case():
    texts, schema = shipped()
    policies = load_policies({**texts, "mine.cedar": code("write-a-policy.md", "cedar")}, schema)
    cases = run_cases(policies, shipped_cases() + "\n" + code("write-a-policy.md", "toml"))
    assert [case.name for case in cases if not case.passed] == []
    assert "promote-alone" in cases[-1].policies
