"""An invariant hears of the topics that it names, and of no others: one that forgets to name a topic would be blind."""

import inspect
import re

import pytest

from mendstream.contracts.topics import Topic
from mendstream.simulation.invariants import INVARIANTS
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.invariants.folded import Folded
from mendstream.simulation.sometimes import Sometimes

LOOKING = (*INVARIANTS, Sometimes)


def hooks(kind):
    """What of its own it does with an append."""
    found = [(base, hook) for base in kind.__mro__ for hook in ("appended", "told") if hook in vars(base)]
    return [vars(base)[hook] for base, hook in found if base not in (Invariant, Folded)]


@pytest.mark.parametrize("kind", LOOKING, ids=lambda kind: kind.name)
def test_it_names_topics_if_it_looks_at_what_is_appended(kind):
    assert bool(kind.topics) == bool(hooks(kind))


@pytest.mark.parametrize("kind", LOOKING, ids=lambda kind: kind.name)
def test_it_names_each_topic_that_it_asks_for(kind):
    asked = {name for hook in hooks(kind) for name in re.findall(r"Topic\.([A-Z_]+)", inspect.getsource(hook))}
    assert asked <= {topic.name for topic in kind.topics}
    assert all(isinstance(topic, Topic) for topic in kind.topics)
