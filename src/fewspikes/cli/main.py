"""The entry point: one line for a bad input, and the exit codes 0 (done), 1 (failed), 2 (bad usage or input)."""

import os
import sys
import warnings
from typing import Annotated, Any

import typer

from fewspikes import __version__
from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.cli import bench, convert, demo, evaluate, fit, interruption, reproduce, simulate

_LONGEST = 2000  # characters of a message

app = typer.Typer(
    name="fewspikes",
    help="Any trained PyTorch network as a spiking network of FS-neurons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("convert", epilog=convert.EXAMPLE)(convert.convert)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("simulate", epilog=simulate.EXAMPLE)(simulate.simulate)
app.command("fit", epilog=fit.EXAMPLE)(fit.fit)
app.command("bench", epilog=bench.EXAMPLE)(bench.bench)
app.command("reproduce", epilog=reproduce.EXAMPLE)(reproduce.reproduce)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fewspikes {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Any trained PyTorch network as a spiking network of FS-neurons."""


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    warnings.showwarning = _show
    interruption.listen()
    try:
        code = app(arguments or ["--help"], prog_name="fewspikes", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        code = interruption.CODE
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            os._exit(1)  # whoever read our output, `head` perhaps, has read enough
        if debug:
            raise
        _leave(*_said(error))
    if code == interruption.CODE:
        interruption.leave()
    sys.exit(code)


def _said(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, FewSpikesError):
        return str(error), 2
    if hasattr(error, "format_message"):  # typer's own, for bad usage
        command = getattr(getattr(error, "ctx", None), "command_path", "fewspikes")
        return f"{str(error.format_message()).rstrip('.')}; see {command} --help", 2
    if isinstance(error, SystemExit):  # no code of ours calls it within a command
        return "a model's own code called sys.exit; take that out of its file", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; give another path, or the right to read it", 2
    return f"{type(error).__name__}: {error}; run again with --debug for the traceback", 1


def _leave(message: str, code: int) -> None:
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    typer.echo(f"error: {line}", err=True)
    sys.exit(code)


def _show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    """Our own warnings in one line; those of other libraries stay out of the way."""
    if issubclass(category, FewSpikesWarning):
        typer.echo("warning: " + " ".join(str(message).split()), err=True)
