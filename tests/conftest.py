"""What all tests share: a profile for Hypothesis, a manual clock, a log in a fresh folder."""

from __future__ import annotations

import pytest
import structlog
from hypothesis import HealthCheck, settings
from tests.support.clock import ManualClock
from tests.support.log import BothWings

pytest_plugins = ["tests.support.services"]

# Examples write to disk on a shared machine: how long one takes says nothing. The seed is printed with a failure.
settings.register_profile(
    "house", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def logs_as_they_come():
    """A verb that ran in this process may have set them to be quiet."""
    structlog.reset_defaults()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def bus(tmp_path, clock):
    log = BothWings(tmp_path, clock)
    yield log
    log.close()
