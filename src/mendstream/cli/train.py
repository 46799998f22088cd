"""`mendstream train TABLE` and `mendstream retrain`: a new model version, by hand."""

from pathlib import Path

import click

from mendstream.cli.options import Door, json_option, settings_options

_MLFLOW = click.option("--mlflow/--no-mlflow", default=True, help="Log and register it with MLflow, or not.")


@click.command
@click.argument("place", metavar="TABLE", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--label", required=True, help="Column with the truth: 1 for the positive class, 0 for the other.")
@click.option("--features", metavar="A,B,...", help="Feature columns, in the order of the model [all others].")
@_MLFLOW
@settings_options
@json_option
def train(door: Door, place: Path, label: str, features: str | None, mlflow: bool, as_json: bool) -> int:
    """Train a version on TABLE (.parquet or .csv: feature columns and a label, oldest row first)."""
    from mendstream.cli.work.train import train_on_table

    names = [name.strip() for name in features.split(",")] if features else None
    return train_on_table(door.settings(), place, label, names, mlflow=mlflow, as_json=as_json)


@click.command
@click.option("--hours", default=6.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="On what was served in the last so many hours.")  # fmt: skip
@_MLFLOW
@settings_options
@json_option
def retrain(door: Door, hours: float, mlflow: bool, as_json: bool) -> int:
    """Train a version on what was served and labelled lately; it goes live with `models promote`."""
    from mendstream.cli.work.train import train_on_log

    return train_on_log(door.settings(), hours, mlflow=mlflow, as_json=as_json)
