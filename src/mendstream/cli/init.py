"""`mendstream init [FOLDER]`: a commented start of a pipeline of one's own."""

from pathlib import Path

import click


@click.command
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", default="payments", show_default=True, help="Name of the pipeline.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def init(folder: Path, name: str, force: bool) -> int:
    """Write mendstream.toml and pipeline.py into FOLDER."""
    from mendstream.cli.work.init import write_start

    return write_start(folder, name, force=force)
