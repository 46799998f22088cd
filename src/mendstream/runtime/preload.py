"""What every process of the house needs, imported once: children are forked with it, so they start in milliseconds."""

import gc

import lmdb
import msgspec
import numpy
import pyarrow
import pyarrow.compute
import pyarrow.ipc
import structlog

import mendstream.adapters.metrics
import mendstream.agents.pipeline.decision
import mendstream.agents.pipeline.feature
import mendstream.agents.pipeline.ingestion
import mendstream.agents.pipeline.model
import mendstream.runtime.local
import mendstream.runtime.work
import mendstream.runtime.worker

# What is here stays: collections in the children need not touch it, so its memory stays shared.
gc.collect()
gc.freeze()

__all__ = ["lmdb", "mendstream", "msgspec", "numpy", "pyarrow", "structlog"]
