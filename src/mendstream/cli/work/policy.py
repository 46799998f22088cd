"""Cedar files in; what is wrong with them, or which cases they fail, out."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mendstream.agents.policy import check_policies, load_policies, run_cases, uncovered
from mendstream.agents.policy.policies import shipped, shipped_cases
from mendstream.cli.show import document, note, table
from mendstream.contracts.errors import CouldNot, SettingsError
from mendstream.settings import Settings


def texts_of(settings: Settings, folder: Path | None) -> tuple[dict[str, str], str, Path | None]:
    """(file name -> text, schema, the folder; None for the shipped ones)."""
    texts, schema = shipped()
    folder = folder or (Path(settings.policy.dir) if settings.policy.dir else None)
    if folder is None:
        return texts, schema, None
    if not folder.is_dir():
        raise SettingsError(f"policy.dir: there is no folder {folder}", hint="empty means the shipped policies")
    return {path.name: _read(path) for path in sorted(folder.glob("*.cedar"))}, schema, folder


def check_files(settings: Settings, folder: Path | None, *, as_json: bool) -> int:
    texts, schema, where = texts_of(settings, folder)
    problems = check_policies(texts, schema)
    if as_json:
        document({"files": list(texts), "problems": problems})
    elif problems:
        for problem in problems:
            note(f"{problem}\n  hint: {problem.hint}")
    else:
        rules = load_policies(texts, schema).rules
        click.echo(f"{len(rules)} policies in {len(texts)} files are well: {where or 'shipped'}")
    return 1 if problems else 0


def test_files(settings: Settings, folder: Path | None, cases: Path | None, *, as_json: bool) -> int:
    texts, schema, where = texts_of(settings, folder)
    policies = load_policies(texts, schema)
    own = where / "cases.toml" if where else None
    chosen = cases or (own if own and own.is_file() else None)
    results = run_cases(policies, _read(chosen) if chosen else shipped_cases())
    untested = uncovered(policies, results)
    failed = [result for result in results if not result.passed]
    if as_json:
        document({"cases": [msgspec.to_builtins(result) for result in results], "failed": len(failed),
                  "uncovered": untested})  # fmt: skip
        return 1 if failed else 0
    table(
        ("case", "action", "expected", "verdict", "policies", "reason"),
        ((r.name, r.action, r.expected, r.verdict, r.policies, r.reason) for r in failed),
        empty=f"all {len(results)} cases pass",
    )
    for name in untested:
        note(f"note: no case is decided by policy {name}: nobody would notice if it were wrong")
    return 1 if failed else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise CouldNot(f"cannot read {path}: {error.strerror}", hint="mend its rights") from error
