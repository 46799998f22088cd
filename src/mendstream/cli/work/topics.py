"""Settings in; topics of a Kafka cluster made, and compared with the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mendstream.cli.show import document, table
from mendstream.runtime.ground import cluster_of, embedded
from mendstream.runtime.roster import tasks_by_agent
from mendstream.settings import Settings

if TYPE_CHECKING:
    from mendstream.adapters.bus.kafka.topics import Wrong

_EMBEDDED = "the log is in the data directory (bus.kind = lmdb): there are no topics to create or to check"


def make_topics(settings: Settings, *, as_json: bool) -> int:
    return _told(settings, make=True, as_json=as_json)


def check_topics(settings: Settings, *, as_json: bool) -> int:
    return _told(settings, make=False, as_json=as_json)


def _told(settings: Settings, *, make: bool, as_json: bool) -> int:
    if embedded(settings):
        _tell((), (), _EMBEDDED, as_json=as_json)
        return 0
    from mendstream.adapters.bus.kafka import topics
    from mendstream.cli.work.log import log_aside

    log_aside()
    cluster, partitions = cluster_of(settings), settings.run.partitions
    tasks = tasks_by_agent(partitions)
    made = topics.make_missing(cluster, partitions, tasks) if make else []
    wrong = topics.check(cluster, partitions, tasks)
    known = len(list(topics.wanted(cluster, partitions, tasks)))
    _tell(made, wrong, f"all {known} topics are as they should be", as_json=as_json)
    return 1 if wrong else 0


def _tell(made: Sequence[str], wrong: Sequence[Wrong], well: str, *, as_json: bool) -> None:
    if as_json:
        document({"made": list(made), "wrong": list(wrong), "note": "" if wrong else well})
        return
    for name in made:
        click.echo(f"made {name}")
    if wrong:
        table(("topic", "problem", "fix"), ((w.topic, w.problem, w.fix) for w in wrong), empty="")
    else:
        click.echo(well)
