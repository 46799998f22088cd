"""mendstream: a streaming machine-learning platform that heals itself.

What a user's own pipeline needs is importable from here; everything else has its floor (see ARCHITECTURE.md).
Imported on demand: the command line must not wait for Arrow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mendstream.contracts.pipeline import Event, Mean, Pipeline, codes

__all__ = ["Event", "Mean", "Pipeline", "codes"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mendstream.contracts import pipeline

    return getattr(pipeline, name)
