"""Memory that a process has for ever is for what it does: what it only names or starts it does not import."""

from __future__ import annotations

import subprocess
import sys


def test_the_supervisor_needs_neither_arrow_nor_an_agent():
    assert (
        imported("mendstream.runtime.supervisor, mendstream.runtime.worker", "numpy", "pyarrow", "mendstream.agents")
        == []
    )


def test_a_trainer_that_waits_has_neither_scikit_learn_nor_mlflow():
    modules = (
        "mendstream.adapters.models.trainer, mendstream.adapters.models.apart, mendstream.adapters.models.registrar"
    )
    assert imported(modules, "sklearn", "onnx", "onnxruntime", "mlflow", "sqlalchemy") == []


def imported(modules: str, *heavy: str) -> list[str]:
    """Those of `heavy` that a new process has once it has imported `modules`."""
    code = f"import sys, {modules}; print(*[name for name in {heavy} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
