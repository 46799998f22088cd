"""`mendstream`: the table of verbs, the settings' options, and the one door through which errors leave."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mendstream.cli.late import late
from mendstream.cli.options import Door, settings_options
from mendstream.contracts.errors import MendstreamError, UsageError

# Verb -> (where it is, its line of help). Help of the group reads this table only, so it imports no verb.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("mendstream.cli.house:demo", "Hurt a real pipeline in four ways and watch it heal."),
    "init": ("mendstream.cli.init:init", "Write a commented start of your own pipeline."),
    "check": ("mendstream.cli.check:check", "Validate settings and pipeline without running them."),
    "run": ("mendstream.cli.house:run", "Run the house: pipeline, monitoring, healing, policy."),
    "agent": ("mendstream.cli.house:agent", "Run one agent as a process (the supervisor does it)."),
    "status": ("mendstream.cli.status:status", "How the house is: processes, vitals, open incidents."),
    "inject": ("mendstream.cli.operate:inject", "Put a fault in, or take it out, where chaos is enabled."),
    "incidents": ("mendstream.cli.incidents:incidents", "List incidents, show one, or close one."),
    "approve": ("mendstream.cli.answers:approve", "Approve a proposal that waits for a person."),
    "deny": ("mendstream.cli.answers:deny", "Deny a proposal that waits for a person."),
    "topics": ("mendstream.cli.topics:topics", "The table of topics."),
    "tail": ("mendstream.cli.tail:tail", "Records of a topic, as they are or as they come."),
    "dead-letters": ("mendstream.cli.letters:letters", "Records that could not be used: list, show, replay."),
    "models": ("mendstream.cli.models:models", "Model versions: list, show, promote, rollback, history."),
    "policy": ("mendstream.cli.policy:policy", "Check policy files, or test them on a table of cases."),
    "pause": ("mendstream.cli.operate:pause", "Block new remedies (never an undo)."),
    "resume": ("mendstream.cli.operate:resume", "Allow remedies again."),
    "db": ("mendstream.cli.db:db", "The store's schema: upgrade, current."),
    "train": ("mendstream.cli.train:train", "Train a model version on a table of features and labels."),
    "retrain": ("mendstream.cli.train:retrain", "Train a model version on what was served and labelled."),
    "bench": ("mendstream.cli.house:bench", "Measure: pipeline, latency, counts, mttr, start, help, all."),
    "simulate": ("mendstream.cli.simulate:simulate", "Hurt a simulated house, thousands of times."),
    "crashtest": ("mendstream.cli.crashtest:crashtest", "Kill real processes or cut the power, and count."),
    "doctor": ("mendstream.cli.doctor:doctor", "Look at this machine, and say what to mend."),
    "version": ("mendstream.cli.version:version", "Versions of mendstream and what it stands on."),
}
YES, NO, USAGE, COULD_NOT, INTERRUPTED = 0, 1, 2, 3, 130


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = late(VERBS[cmd_name][0])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=list(VERBS), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run one command and exit; whatever happens, no traceback."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        extra.setdefault("prog_name", "mendstream")
        try:
            answer = super().main(given, *rest, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader (`| head`) has seen enough. What is still buffered must not be written at exit.
            sys.stdout = None
            sys.exit(YES)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - the door of the house: beyond it there is only the terminal
            sys.exit(tell(error, as_json="--json" in given))
        sys.exit(answer if isinstance(answer, int) else YES)


def tell(error: Exception, *, as_json: bool) -> int:
    """Print `error` for a person or as JSON; returns the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    code, message, hint = _parts(error)
    if as_json:
        import json

        click.echo(json.dumps({"code": code, "message": message, "hint": hint}, ensure_ascii=False), err=True)
    else:
        click.echo(f"error: {message}", err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
    return code


def _parts(error: Exception) -> tuple[int, str, str]:
    """(exit code, message, hint)."""
    match error:
        case UsageError():
            return USAGE, str(error), error.hint
        case MendstreamError():
            return COULD_NOT, str(error), error.hint
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "mendstream"
            return USAGE, error.format_message(), f"`{path} --help` says what it takes"
        case click.ClickException():
            return USAGE, error.format_message(), ""
        case OSError():
            return COULD_NOT, str(error), "the system refused it"
        case _:
            return COULD_NOT, f"a bug in mendstream: {type(error).__name__}: {error}", _kept(error)


def _kept(error: Exception) -> str:
    """Keep the traceback for a report; a terminal is no place for it."""
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mendstream-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    return f"please report it with {file.name}"


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from mendstream import __version__

        click.echo(f"mendstream {__version__}")
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@settings_options
def main(door: Door) -> None:
    """A streaming machine-learning pipeline that keeps itself healthy.

    Start with `mendstream demo`. Exit codes: 0 yes, 1 no, 2 usage or settings, 3 could not.
    """
    click.get_current_context().obj = door
