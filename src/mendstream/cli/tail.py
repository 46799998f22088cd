"""`mendstream tail TOPIC`: records of a topic, frames taken apart into theirs."""

import click

from mendstream.cli.options import Door, json_option, settings_options
from mendstream.contracts.topics import SPECS

_TOPICS = [topic.value for topic in SPECS]


@click.command
@click.argument("topic", type=click.Choice(_TOPICS), metavar="TOPIC")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record that is kept.")
@click.option(
    "-n", "count", default=10, type=click.IntRange(0), show_default=True, help="Newest records to start with."
)
@click.option("--partition", type=click.IntRange(0), help="Only this partition.")
@settings_options
@json_option
def tail(
    door: Door, topic: str, follow: bool, from_beginning: bool, count: int, partition: int | None, as_json: bool
) -> int:
    """Records of TOPIC; `mendstream topics` lists the topics. With --json one object a line."""
    from mendstream.cli.work.tail import tail_topic

    newest = None if from_beginning else count
    return tail_topic(door.settings(), topic, partition, newest, follow=follow, as_json=as_json)
