"""The generated pages are fresh, and nothing of the house goes unmentioned."""

import pytest
from tests.docs.pages import REFERENCE, ROOT, name_of, pages
from tools import make_docs

from mendstream.adapters.metrics.table import METRICS
from mendstream.agents.healing.playbooks import PLAYBOOKS, WAY_BACK
from mendstream.agents.monitoring.detectors import BRIEF_DETECTORS, DETECTORS
from mendstream.agents.policy import load_policies
from mendstream.agents.policy.policies import shipped
from mendstream.chaos.faults import FAULTS
from mendstream.cli.group import VERBS, tell
from mendstream.contracts import errors
from mendstream.contracts.incident import Phase
from mendstream.contracts.knobs import KNOBS
from mendstream.contracts.records import TOPIC_OF, ActionKind, DeadReason
from mendstream.contracts.topics import TOPICS
from mendstream.runtime.roster import ROLES
from mendstream.settings import FIELDS

NAMED = {
    "topics.md": [f"`{spec.topic}`" for spec in TOPICS],
    "settings.md": [name for field in FIELDS for name in (f"`{field.key}`", f"`{field.env}`")],
    "knobs.md": [f"`{knob.name}`" for knob in KNOBS],
    "records.md": [*(f"## {kind.__name__}" for kind in TOPIC_OF), *(f"`{reason}`" for reason in DeadReason)],
    "metrics.md": [f"`{metric.name}`" for metric in METRICS],
    "detectors.md": [f"### {row.name}" for row in (*DETECTORS, *BRIEF_DETECTORS)],
    "playbooks.md": [
        *(f"## {book.name}" for book in (*PLAYBOOKS, WAY_BACK)),
        *(rung.name for book in (*PLAYBOOKS, WAY_BACK) for rung in book.rungs),
        *(f"`{kind}`" for kind in ActionKind),
    ],
    "policies.md": [f"`{name}`" for name in load_policies(*shipped()).rules],
    "faults.md": [f"`{row.name}`" for row in FAULTS],
    "cli.md": [f"## mendstream {verb}" for verb in VERBS],
    "processes.md": [f"`{role.name}`" for role in ROLES],
    "incidents.md": [f"`{phase}`" for phase in Phase],
}


def test_generated_pages_are_fresh():
    assert make_docs.stale_pages() == [], "`make docs` writes them again"


def test_a_stale_page_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(make_docs, "OUT", tmp_path)
    for name, text in make_docs.pages().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert make_docs.stale_pages() == []
    (tmp_path / "knobs.md").write_text("# Knobs\n", encoding="utf-8")
    (tmp_path / "stray.md").write_text("", encoding="utf-8")
    assert make_docs.stale_pages() == ["knobs.md", "stray.md"]


@pytest.mark.parametrize("page", NAMED)
def test_everything_is_named_in_its_page(page):
    text = (REFERENCE / page).read_text(encoding="utf-8")
    assert [name for name in NAMED[page] if name not in text] == []


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    docs = [name_of(path).removeprefix("docs/") for path in pages() if name_of(path).startswith("docs/")]
    assert [name for name in docs if name != "README.md" and name not in index] == []


@pytest.mark.parametrize("kind", [errors.UsageError, errors.SettingsError, errors.CouldNot, errors.LogFull])
def test_the_exit_codes_of_errors_are_those_of_the_command_line(kind, capsys):
    said = tell(kind("so it is"), as_json=False)
    row = f"| `{kind.__name__}` | `{kind.__mro__[1].__name__}` |"
    line = next(x for x in (REFERENCE / "errors.md").read_text(encoding="utf-8").splitlines() if x.startswith(row))
    assert line.endswith(f"| {said} |")
