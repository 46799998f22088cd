"""Faults into a data directory that no house serves: what is written, what is signalled, what is refused."""

import json
import os
import signal
import subprocess
import sys

import pytest

from mendstream.adapters.models.catalogue import Catalogue
from mendstream.chaos.faults import FAULTS, How, fault
from mendstream.contracts.errors import CouldNot, UsageError
from mendstream.contracts.records import ConfigChange, Fault, decode_block
from mendstream.contracts.topics import CONFIG, Topic
from mendstream.demo.scenario import FIRST_MODELS, bad_model
from mendstream.runtime.ground import current_config, open_bus, prepare
from mendstream.runtime.inject import inject
from mendstream.settings import load, models_dir


def settings_of(root, *, chaos=True):
    overrides = {
        "run.data_dir": str(root),
        "chaos.enabled": chaos,
        "bus.map_size_mb": 64,
        "models.initial": str(FIRST_MODELS),
    }
    return load(env={}, overrides=overrides, dotenv=None).settings


@pytest.fixture
def settings(tmp_path):
    made = settings_of(tmp_path)
    prepare(made)
    return made


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def processes(root, **children):
    rows = {name.replace("_", "-"): {"generation": 3, "pid": pid, "alive": alive, "role": "x"}
            for name, (pid, alive) in children.items()}  # fmt: skip
    (root / "run").mkdir(exist_ok=True)
    (root / "run" / "processes.json").write_text(json.dumps({"pid": os.getpid(), "children": rows}))


def written(settings):
    bus = open_bus(settings)
    found = [
        record
        for block in bus.read(CONFIG, 0, max_rows=100, max_bytes=1 << 20)
        for record in decode_block(Topic.CONFIG_UPDATES, bytes(block.value))
    ]
    bus.close()
    return found


def test_a_record_fault_is_published_with_its_defaults_and_taken_out_again(settings):
    assert inject(settings, "slow-model", {}, True, "ann") == "slow-model is in (call_ms = 350)"
    assert inject(settings, "slow-model", {}, False, "ann") == "slow-model is out"
    put, out = [record for record in written(settings) if isinstance(record, Fault)]
    assert (put.name, put.on, put.params["call_ms"], put.actor) == ("slow-model", True, 350.0, "ann")
    assert (out.name, out.on) == ("slow-model", False)
    assert put.id != out.id


def test_given_parameters_beat_the_defaults(settings):
    inject(settings, "slow-model", {"call_ms": 800}, True, "ann")
    assert written(settings)[-1].params == {"call_ms": 800, "row_ms": 0.0}


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.name)
def test_every_fault_is_refused_where_chaos_is_not_enabled(tmp_path, row):
    with pytest.raises(UsageError, match=r"chaos.enabled is false"):
        inject(settings_of(tmp_path, chaos=False), row.name, {}, True, "ann")


def test_an_unknown_fault_names_the_nearest(settings):
    with pytest.raises(UsageError) as caught:
        inject(settings, "slow-modle", {}, True, "ann")
    assert "did you mean slow-model?" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("slow-model", {"delay": 3}),
        ("slow-model", {"call_ms": "long"}),
        ("slow-model", {"call_ms": -1}),
        ("slow-model", {"call_ms": float("nan")}),
        ("slow-model", {"call_ms": True}),
        ("dead-agent", {"target": 7}),
        ("drift", {"call_ms": 3}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(settings, name, params):
    with pytest.raises(UsageError):
        inject(settings, name, params, True, "ann")
    assert not any(isinstance(record, Fault) for record in written(settings))


def test_a_bad_model_is_promoted_by_force(settings):
    onnx, card = bad_model()
    Catalogue(models_dir(settings).absolute()).add(onnx, card)
    said = inject(settings, "bad-model", {}, True, "ann")
    assert said == "v2 is promoted by force over v1, config 2"
    change = written(settings)[-1]
    assert isinstance(change, ConfigChange)
    assert (change.forced, change.actor, change.reason) == (True, "ann", "chaos: bad-model")
    bus = open_bus(settings)
    assert current_config(bus).model_version == "v2"
    bus.close()
    with pytest.raises(UsageError, match="v2 is live already"):
        inject(settings, "bad-model", {}, True, "ann")


def test_a_version_that_is_not_in_the_catalogue_is_refused(settings):
    with pytest.raises(UsageError, match="v9"):
        inject(settings, "bad-model", {"version": "v9"}, True, "ann")


def test_a_promotion_cannot_be_taken_out(settings):
    with pytest.raises(UsageError, match="cannot be taken out"):
        inject(settings, "bad-model", {}, False, "ann")


def test_a_dead_agent_is_killed(settings, tmp_path, sleeper):
    processes(tmp_path, model_0=(sleeper.pid, True))
    assert inject(settings, "dead-agent", {}, True, "ann").startswith("SIGKILL sent to model-0 (generation 3")
    assert sleeper.wait(5) == -signal.SIGKILL


def test_when_fused_the_default_target_is_the_fused_process(settings, tmp_path, sleeper):
    processes(tmp_path, fused_0=(sleeper.pid, True))
    assert "fused-0" in inject(settings, "dead-agent", {}, True, "ann")


def test_a_target_that_was_chosen_is_not_exchanged_for_another(settings, tmp_path, sleeper):
    processes(tmp_path, fused_0=(sleeper.pid, True))
    with pytest.raises(UsageError, match="no process 'model-0'"):
        inject(settings, "dead-agent", {"target": "model-0"}, True, "ann")
    assert sleeper.poll() is None


def test_a_stuck_agent_is_stopped_and_goes_on_when_the_fault_is_out(settings, tmp_path, sleeper):
    processes(tmp_path, model_0=(sleeper.pid, True))
    inject(settings, "stuck-agent", {}, True, "ann")
    assert os.WIFSTOPPED(os.waitpid(sleeper.pid, os.WUNTRACED)[1])
    inject(settings, "stuck-agent", {}, False, "ann")
    assert os.WIFCONTINUED(os.waitpid(sleeper.pid, os.WCONTINUED)[1])


def test_a_process_that_is_not_alive_is_not_signalled(settings, tmp_path, sleeper):
    processes(tmp_path, model_0=(sleeper.pid, False))
    with pytest.raises(CouldNot, match="model-0 is not alive"):
        inject(settings, "dead-agent", {}, True, "ann")
    assert sleeper.poll() is None


def test_a_pid_that_somebody_else_has_now_is_not_signalled(settings, tmp_path):
    other = subprocess.Popen(["sleep", "60"])
    try:
        processes(tmp_path, model_0=(other.pid, True))
        with pytest.raises(CouldNot, match="is not alive"):
            inject(settings, "dead-agent", {}, True, "ann")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_without_a_house_there_is_nobody_to_signal(settings):
    with pytest.raises(CouldNot, match="no house runs"):
        inject(settings, "dead-agent", {}, True, "ann")


def test_a_dead_agent_cannot_be_taken_out(settings, tmp_path):
    processes(tmp_path)
    with pytest.raises(UsageError, match="cannot be taken out"):
        inject(settings, "dead-agent", {}, False, "ann")


def test_the_table_is_whole():
    assert len({row.name for row in FAULTS}) == len(FAULTS)
    assert all(row.doc and row.title for row in FAULTS)
    assert fault("drift").how is How.RECORD
