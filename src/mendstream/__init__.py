"""mendstream: a streaming machine-learning platform that heals itself.

What a user's own pipeline needs is importable from here; everything else has its floor (see ARCHITECTURE.md).
"""

from mendstream.contracts.pipeline import Event, Mean, Pipeline, codes

__all__ = ["Event", "Mean", "Pipeline", "codes"]
__version__ = "0.1.0"
