"""The entry point: one line for a bad input, and the exit codes 0 (done), 1 (failed), 2 (bad usage or input)."""

import sys
import warnings
from typing import Annotated, Any

import typer

from fewspikes import __version__
from fewspikes.cli import convert, demo, evaluate, fit
from fewspikes.errors import FewSpikesError, FewSpikesWarning

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
app.command("fit", epilog=fit.EXAMPLE)(fit.fit)


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
    try:
        app(arguments)
    except FewSpikesError as error:
        if debug:
            raise
        _leave(error, 2)
    except Exception as error:
        if debug:
            raise
        _leave(f"{type(error).__name__}: {error}; run again with --debug for the traceback", 1)


def _leave(message: object, code: int) -> None:
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(code)


def _show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Our own warnings in one line; those of other libraries stay out of the way."""
    if issubclass(category, FewSpikesWarning):
        print("warning:", " ".join(str(message).split()), file=sys.stderr)
