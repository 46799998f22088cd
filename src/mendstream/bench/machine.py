"""What the figures were measured on: read before the first measurement, reported beside the last."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from mendstream import __version__


def facts() -> dict[str, Any]:
    """Cores, Python, and how busy the machine was before anything was measured."""
    return {
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mendstream": __version__,
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def text(known: dict[str, Any]) -> str:
    """For people."""
    load = ", ".join(f"{value:.2f}" for value in known["load_before"])
    return (
        f"{known['cores']} cores ({known['processor']}), Python {known['python']}, {known['system']}; "
        f"load average before: {load}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
