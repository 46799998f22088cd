"""Flights as lines of JSON in; what a pipeline's functions get of them out."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa


def columns_of(lines):
    flights = [json.loads(line) for line in lines]
    columns = {name: [flight[name] for flight in flights] for name in flights[0]}
    return {
        name: pa.array(values) if isinstance(values[0], str) else np.array(values, dtype=float)
        for name, values in columns.items()
    }
