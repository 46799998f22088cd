"""`mendstream version`: what runs here, and on what."""

from __future__ import annotations

from typing import Any

import click

from mendstream import __version__
from mendstream.cli.options import json_option
from mendstream.cli.show import document, pairs

_PACKAGES = ("lmdb", "pyarrow", "numpy", "onnxruntime", "scikit-learn", "cedarpy", "langgraph", "sqlalchemy")


@click.command
@json_option
def version(as_json: bool) -> None:
    """Versions of mendstream and what it stands on."""
    import platform
    from importlib import metadata

    found: dict[str, Any] = {"mendstream": __version__, "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in _PACKAGES}
    if as_json:
        document(found)
    else:
        pairs(found)
