"""`init` writes a start that loads, and `check` says what is wrong with a pipeline before it runs."""

import json
import re
import sys
import tomllib

import pytest

from mendstream.settings import FIELDS, load


@pytest.fixture(autouse=True)
def _fresh_imports(monkeypatch):
    """Pipelines are imported from the working folder under one name; each test has its own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("pipeline", "mine"):
        sys.modules.pop(name, None)
    yield
    for name in ("pipeline", "mine"):
        sys.modules.pop(name, None)


@pytest.fixture
def mine(folder):
    """Write mine.py with these features, fallback and more; its settings name it."""

    def write(features="{'amount': events['amount']}", fallback="0.5 + 0 * [*features.values()][0]", field="", more=""):
        (folder / "mine.py").write_text(
            "from typing import Annotated\nimport numpy as np\nfrom msgspec import Meta\n"
            "from mendstream import Event, Mean, Pipeline\n"
            f"class Sale(Event, frozen=True):\n    id: str\n    shop: str\n    amount: float\n    {field}\n"
            "mine = Pipeline('mine', event=Sale, id='id', key='shop', windows={'usual': Mean('amount', last=3)})\n"
            f"@mine.features\ndef features(events, windows):\n    return {features}\n"
            f"@mine.fallback\ndef fallback(features):\n    return {fallback}\n{more}\n"
        )
        (folder / "mendstream.toml").write_text('pipeline = "mine:mine"\n[ingestion]\nsource = "stdin"\n')

    return write


def problems(run, *args: str) -> list[str]:
    ran = run("check", "--json", *args)
    found = [f"{where}: {what}" for where, what, _ in json.loads(ran.out)["problems"]]
    assert ran.code == (1 if found else 0)
    return found


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_writes_a_start_that_check_finds_well(run, folder):
    assert run("init", "--name", "fraud").code == 0
    ran = run("check")
    assert (ran.code, ran.out) == (0, "pipeline:fraud is well\n")


def test_the_settings_that_init_writes_name_every_field_and_change_nothing_but_the_pipeline(run, folder):
    run("init")
    text = (folder / "mendstream.toml").read_text()
    assert all(f"{field.name} = " in text for field in FIELDS if field.kind != "secret")
    as_written = load(env={})
    given = {key for key, origin in as_written.origins.items() if origin != "default"}
    assert given == {"pipeline", "ingestion.source"}
    # Each commented default is one that could stand there: TOML, of its type, within its bounds.
    uncommented = re.sub(r"^# (\w+ = [^ \n]+)$", r"\1", text, flags=re.MULTILINE)
    (folder / "mendstream.toml").write_text(uncommented)
    assert tomllib.loads(uncommented)["run"]["partitions"] == 1
    assert load(env={}).settings == as_written.settings


def test_init_overwrites_only_by_force(run, folder):
    run("init")
    (folder / "pipeline.py").write_text("mine")
    ran = run("init")
    assert ran.code == 3
    assert "--force" in ran.err
    assert (folder / "pipeline.py").read_text() == "mine"
    assert run("init", "--force").code == 0
    assert (folder / "pipeline.py").read_text() != "mine"


def test_init_makes_the_folder_and_refuses_a_name_that_python_would(run, folder):
    assert run("init", "new/place").code == 0
    assert (folder / "new/place/pipeline.py").exists()
    assert run("init", "--name", "my-pipe", "elsewhere").code == 2
    assert run("init", "--name", "class", "elsewhere").code == 2


# --- check -----------------------------------------------------------------------------------------------------------


def test_without_a_pipeline_check_is_a_settings_error(run):
    ran = run("check")
    assert ran.code == 2
    assert "mendstream init" in ran.err


def test_wrong_settings_are_exit_code_two(run, mine, folder):
    mine()
    assert run("check", "--set", "run.partitions=0").code == 2


def test_a_sound_pipeline_is_well(run, mine):
    mine(features="{'amount': events['amount'], 'usual': windows['usual']}")
    assert problems(run) == []


MISTAKES = {
    "features: fails on a batch of 6: KeyError: 'amout'": {"features": "{'amount': events['amout']}"},
    "features: column amount has shape [2] on a batch of 6": {"features": "{'amount': events['amount'][:2]}"},
    "features: gives no columns on a batch of 6": {"features": "{}"},
    "features: pipeline mine: features may not be named score": {"features": "{'score': events['amount']}"},
    "features: column amount holds an infinity": {"features": "{'amount': events['amount'] / 0}"},
    "features: column amount of a row depends on the other rows": {
        "features": "{'amount': events['amount'] - events['amount'].mean()}"
    },
    "features: fails on a batch of 0: IndexError": {"features": "{'amount': events['amount'] + events['amount'][0]}"},
    "features: a batch of 1 has other columns: b instead of a": {
        "features": "{('a' if len(events['amount']) > 1 else 'b'): events['amount']}"
    },
    "fallback: gives shape [] on a batch of 6": {"fallback": "0.5"},
    "fallback: gives a score of 33.3": {"fallback": "features['amount']"},
    "fallback: the score of a row depends on the other rows": {
        "fallback": "features['amount'] / features['amount'].max(initial=1)"
    },
    "decide: gives 1 outcomes on a batch of 6": {"more": "mine.decide(lambda score, features, threshold: ['yes'])"},
    "decide: gives 6 outcomes on a batch of 6": {"more": "mine.decide(lambda score, features, threshold: score > 1)"},
    "features: pipeline mine has no features": {"more": "mine._features = None"},
    "event: Sale.tags: list[str] has no column type": {"field": "tags: list[str] = []"},
    "pipeline: pipeline mine: field 'key' of Sale has the name of a column": {"field": "key: str = ''"},
    "event: no events can be made up": {"field": "code: Annotated[str, Meta(pattern='^[0-9]{4}$')] = '0000'"},
    "RuntimeError: at import": {"more": "raise RuntimeError('at import')"},
}


@pytest.mark.parametrize("says", MISTAKES)
def test_each_mistake_of_a_pipeline_is_told(run, mine, says):
    mine(**MISTAKES[says])
    found = problems(run)
    assert says in "\n".join(found)


def test_bounds_options_and_booleans_are_made_up_as_the_type_wants_them(run, mine):
    mine(
        features="{'a': events['a'], 'b': events['b'], 'c': events['c'], 'd': events['d']}",
        field="a: Annotated[int, Meta(ge=3, le=5)]\n    b: Annotated[float, Meta(gt=0, lt=1)]\n    c: bool\n"
        "    d: int | None\n    e: Annotated[str, Meta(min_length=12, max_length=14)]\n"
        "    f: Annotated[int, Meta(multiple_of=7, ge=10)]",
    )
    assert problems(run) == []


def test_real_events_can_be_given_instead(run, mine, folder):
    mine(field="code: Annotated[str, Meta(pattern='^[0-9]{4}$')]")
    (folder / "some.jsonl").write_text('{"id": "1", "shop": "a", "amount": 2.5, "code": "1234"}\n')
    assert problems(run, "--events", "some.jsonl") == []
    (folder / "some.jsonl").write_text('\n{"id": "1", "shop": "a", "amount": "x"}\n')
    assert problems(run, "--events", "some.jsonl")[0].startswith("event: some.jsonl:2: Expected `float`")


def test_all_problems_are_told_at_once(run, mine, folder):
    mine(fallback="0.5")
    found = problems(run, "--set", "ingestion.source=file:none.jsonl", "--set", "models.initial=none", "--bus", "kafka",
                     "--set", "policy.dir=none")  # fmt: skip
    assert [problem.split(":")[0] for problem in found] == [
        "settings", "fallback", "fallback", "fallback", "models.initial", "ingestion.source", "policy.dir",
    ]  # fmt: skip


def test_a_module_or_object_that_is_not_there_is_told(run, mine):
    mine()
    assert "No module named 'nope'" in problems(run, "--set", "pipeline=nope:mine")[0]
    assert "no attribute 'yours'" in problems(run, "--set", "pipeline=mine:yours")[0]
    assert "not a mendstream.Pipeline" in problems(run, "--set", "pipeline=mine:np")[0]


# --- the initial model -----------------------------------------------------------------------------------------------


@pytest.fixture
def models(folder, run, mine):
    """models/v1, trained on the pipeline's own feature."""
    rows = "\n".join(f"{n % 37},{int(n % 37 > 18)}" for n in range(400))
    (folder / "table.csv").write_text(f"amount,late\n{rows}\n")
    ran = run("train", "table.csv", "--label", "late", "--set", "models.dir=models", "--no-mlflow", "--json")
    assert ran.code == 0
    assert ran.json["version"] == "v1"
    return folder / "models"


def test_train_makes_a_version_that_check_finds_well(run, mine, models):
    mine()
    assert problems(run, "--set", "models.initial=models") == []


def test_a_model_with_other_inputs_or_a_changed_file_is_told(run, mine, models):
    mine(features="{'sum': events['amount']}", fallback="features['sum'] * 0 + 0.5")
    (found,) = problems(run, "--set", "models.initial=models")
    assert found == "model v1: wants features that the pipeline does not make: amount"
    (models / "v1" / "model.onnx").write_bytes(b"")
    assert "empty" in problems(run, "--set", "models.initial=models")[0]
