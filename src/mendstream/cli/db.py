"""`mendstream db upgrade|current`: the schema of the store."""

import click

from mendstream.cli.options import Door, json_option, settings_options


@click.group
def db() -> None:
    """The store's schema."""


@db.command
@click.option("--rebuild", is_flag=True, help="Empty the tables and fill them again from the log.")
@settings_options
@json_option
def upgrade(door: Door, rebuild: bool, as_json: bool) -> int:
    """Make the database if it is new, and run the migrations that are missing."""
    from mendstream.adapters.store.schema import current, init_db
    from mendstream.cli.show import document
    from mendstream.cli.work.db import fill_again, url_of

    url = url_of(door.settings())
    before = current(url)
    init_db(url)
    after = current(url)
    if rebuild:
        fill_again(door.settings())
    if as_json:
        document({"before": before, "revision": after})
    else:
        click.echo(f"at {after}" + ("" if before == after else f", was {before or 'empty'}"))
    return 0


@db.command
@settings_options
@json_option
def current(door: Door, as_json: bool) -> int:
    """The revision that the database is at. Exit code 1 if it is not the newest."""
    from mendstream.adapters.store import schema
    from mendstream.cli.show import document
    from mendstream.settings import store_url

    found = schema.current(store_url(door.settings()))
    if as_json:
        document({"revision": found, "newest": schema.HEAD})
    else:
        click.echo(f"at {found or 'nothing yet'}" + ("" if found == schema.HEAD else f"; newest is {schema.HEAD}"))
    return 0 if found == schema.HEAD else 1
