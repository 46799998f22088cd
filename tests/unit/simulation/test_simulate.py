"""`mendstream simulate`: seeds and plans in; timelines, totals and clear errors out."""

import json

import pytest

from mendstream.cli import main


@pytest.fixture
def run(capsys):
    def call(*args):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", *map(str, args)])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return call


def test_a_saved_plan_replays_the_same_run_as_its_seed(run, tmp_path):
    plan = tmp_path / "plan.json"
    assert run("--seed", 5, "--save", plan)[0] == 0
    code, by_seed, _ = run("--seed", 5, "--json")
    assert code == 0
    _, by_plan, _ = run("--replay", plan, "--json")
    assert json.loads(by_plan)["digest"] == json.loads(by_seed)["digest"]


def test_seeds_are_run_and_told_of(run, tmp_path):
    state = tmp_path / "state"
    code, out, _ = run("--seeds", 2, "--from", 5, "--workers", 1, "--resume", state, "--json")
    told = json.loads(out)
    assert (code, told["seeds"], told["violations"], told["first"]) == (0, 2, 0, 5)
    code, out, _ = run("--seeds", 2, "--from", 5, "--workers", 1, "--resume", state, "--json")
    assert json.loads(out)["digest"] == told["digest"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"seed": 1, "version": 99}', "version 99"),
        ("{", "no plan"),
        ('{"seed": "x", "version": 1}', "no plan"),
        ('{"seed": 1, "version": 1, "injections": [{"fault": "gremlins"}]}', "no fault 'gremlins'"),
        ('{"seed": 1, "version": 1, "settings": {"run.fuze": true}}', "run.fuse"),
        ('{"seed": 1, "version": 1, "habits": {"score_us": "x"}}', "score_us"),
    ],
)
def test_a_plan_that_does_not_fit_this_version_is_refused_in_words(run, tmp_path, content, why):
    path = tmp_path / "plan.json"
    path.write_text(content)
    code, _, err = run("--replay", path)
    assert code == 2
    assert why in err


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--replay", "nowhere.json"), "No such file"),
        (("--seed", 1, "--planted"), "exclude"),
        (("--save", "x.json"), "--seed"),
        (("--planted", "--bug", "gremlins"), "no bug 'gremlins'"),
    ],
)
def test_what_makes_no_sense_is_said(run, args, why):
    code, _, err = run(*args)
    assert code == 2
    assert why in err
