"""Plans that once broke a promise: each has to hold from now on. `mendstream simulate --replay FILE` shows one."""

from pathlib import Path

import pytest

from mendstream.chaos import plan as plans
from mendstream.simulation.campaign import be_quiet
from mendstream.simulation.schedule import Run

FOUND = sorted((Path(__file__).parent / "seeds").glob("*.json"))


@pytest.fixture(autouse=True)
def quiet():
    be_quiet()


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_mended_stays_mended(path):
    assert [str(broken) for broken in Run(plans.read(path))().violations] == []


def test_there_are_such_plans():
    assert FOUND
