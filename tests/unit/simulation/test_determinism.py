"""The same seed is the same run, on any machine and under any hash seed; and nothing in it asks the real world."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mendstream.simulation

HERE = Path(mendstream.simulation.__file__).parent
REAL = {"crash", "calm", "audit", "spawned", "stream", "powercut", "outage", "traced", "campaign"}
"""What runs real processes, or shares seeds among them."""
FORBIDDEN = {"time", "threading", "uuid", "secrets", "asyncio", "concurrent", "multiprocessing", "subprocess"}
CODE = """
from mendstream.simulation.campaign import be_quiet, outcome_of
be_quiet()
print([(outcome_of(seed).digest, outcome_of(seed).events) for seed in (1, 3, 6)])
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_seed_is_the_same_run_whatever_the_hash_seed():
    told = [
        subprocess.run(
            [sys.executable, "-c", CODE], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]  # fmt: skip
    assert told[0] == told[1] != ""


@pytest.mark.parametrize(
    "path", sorted(path for path in HERE.rglob("*.py") if path.stem not in REAL), ids=lambda path: path.stem
)
def test_nothing_simulated_asks_the_real_world(path):
    """No clock but `time.process_time`, which only says what a run has cost; no thread, no process, no `hash`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    allowed = {"time"} if path.stem == "schedule" else set()
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert imported & (FORBIDDEN - allowed) == set()
    assert called & {"hash", "id"} == set()
