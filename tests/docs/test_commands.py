"""Every command that the documentation shows exists; those that take no time are run."""

import re

import click
import pytest
from tests.docs.pages import ROOT, blocks, commands, name_of, parse, resolved, spans, written_pages

from mendstream.settings import FIELD_OF
from mendstream.settings.fields import GROUP_DOCS

README = ROOT / "README.md"
SHOWN = {command.args for path in written_pages() for command in commands(path)}


@pytest.mark.parametrize("path", written_pages(), ids=name_of)
def test_commands_parse(path):
    wrong = []
    for command in commands(path):
        try:
            parse(command.args)
        except click.ClickException as error:
            wrong.append(f"mendstream {' '.join(command.args)}: {error.format_message()}")
    assert wrong == []


def test_a_wrong_command_is_noticed():
    for args in (("inciden",), ("run", "--fusee"), ("tail", "alert"), ("incidents", "close", "inc-1"), ("topics", "x")):
        with pytest.raises(click.ClickException):
            parse(args)


def test_the_commands_that_messages_and_hints_name_exist():
    wrong = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for args in (tuple(span.split()[1:]) for span in spans(path.read_text(encoding="utf-8"))):
            try:
                command, ctx, rest = resolved(args)
                command.make_parser(ctx).parse_args([word for word in rest if word != "--help"])
            except click.NoSuchCommand as error:
                # A group may be named alone, and WORDS may stand for a verb.
                if error.command_name and not error.command_name.isupper():
                    wrong.append(f"{name_of(path)}: mendstream {' '.join(args)}")
            except click.NoSuchOption:
                wrong.append(f"{name_of(path)}: mendstream {' '.join(args)}")
    assert wrong == []


def test_the_settings_that_pages_and_hints_name_exist():
    named = re.compile(rf"`((?:{'|'.join(GROUP_DOCS)})\.[a-z_]+)`")
    hinted = re.compile(rf"hint=[^\n]*?\b((?:{'|'.join(GROUP_DOCS)})\.[a-z_]+)(?![\w.(\]])")
    found = [(path, key) for path in written_pages() for key in named.findall(path.read_text(encoding="utf-8"))]
    found += [(path, key) for path in sorted((ROOT / "src").rglob("*.py"))
              for key in hinted.findall(path.read_text(encoding="utf-8"))]  # fmt: skip
    files = (".py", ".md", ".log")
    assert [(name_of(path), key) for path, key in found if key not in FIELD_OF and not key.endswith(files)] == []


def test_each_shown_verb_has_help(run):
    paths = {tuple(resolved(args)[1].command_path.split()[1:]) for args in SHOWN}
    assert len(paths) > 20
    for path in sorted(paths):
        code, said = run(*path, "--help")
        assert (code, "Usage: mendstream" in said) == (0, True), path


QUICK = [("topics",), ("topics", "--json"), ("policy", "test"), ("policy", "check"), ("version",)]


@pytest.mark.parametrize(
    "args", [("topics",), ("topics", "--json"), ("policy", "test"), ("policy", "check"), ("version",)]
)
def test_quick_commands_run(run, args):
    assert run(*args)[0] == 0


def test_the_commented_start_is_well(run, folder, monkeypatch):
    assert run("init", "payments-demo")[0] == 0
    monkeypatch.chdir(folder / "payments-demo")
    monkeypatch.syspath_prepend(str(folder / "payments-demo"))
    code, said = run("check", "--set", "pipeline=pipeline:payments")
    assert code == 0, said


def test_the_readme_s_pipeline_is_well(run, folder, monkeypatch):
    found = dict(blocks(README))
    (folder / "readme_pipeline.py").write_text(found["python"], encoding="utf-8")
    (folder / "mendstream.toml").write_text(found["toml"].replace("pipeline:", "readme_pipeline:"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    code, said = run("check")
    assert code == 0, said
    lines = [line for line in found["python"].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_make_has_the_targets_that_are_shown():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = {
        word
        for path in written_pages()
        for _, text in blocks(path)
        for word in re.findall(r"^make (\w+)", text, re.MULTILINE)
    }
    assert {"demo", "test"} <= shown <= targets
