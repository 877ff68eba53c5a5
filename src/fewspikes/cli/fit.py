"""`fewspikes fit`: parameters for an activation, with their error."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from fewspikes.base.checks import MOST_SEED
from fewspikes.base.errors import FewSpikesError
from fewspikes.cli import options
from fewspikes.fitting import FitResult
from fewspikes.fitting import fit as fit_activation

EXAMPLE = "Example: fewspikes fit silu -K 8 --max-spikes 1.8 -o silu.json"


def fit(
    activation: Annotated[
        str,
        typer.Argument(
            metavar="ACTIVATION", help="relu, relu6, silu, sigmoid, gelu, tanh, ..., or file.py:function of a tensor."
        ),
    ],
    steps: Annotated[
        int | None, typer.Option("-K", help="Time steps, 1 to 24. Default: 16; with --method closed the paper's.")
    ] = None,
    domain: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Inputs to fit on. Default: the activation's."),
    ] = None,
    max_spikes: Annotated[float | None, typer.Option(help="The most mean spikes, a hard limit.")] = None,
    spike_price: Annotated[
        float, typer.Option(help="The rise of the squared error, as a share of the variance, that a spike is worth.")
    ] = 0.0,
    no_offset: Annotated[bool, typer.Option("--no-offset", help="Silence stands for 0, as in the paper.")] = False,
    inputs: Annotated[
        str | None, typer.Option(help="uniform, or MEAN,VARIANCE of a Gaussian. Default: the activation's usual.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="search, bptt (the paper's) or closed (ReLU's binary code; published silu and sigmoid)."),
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Numbers on 2^BITS values in [-8, 8), as chips hold them.")] = None,
    effort: Annotated[str, typer.Option(help="quick (milliseconds), normal (seconds) or long (minutes).")] = "normal",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of everything random.")] = 0,
    alpha: Annotated[float | None, typer.Option(help="The range of a ReLU. Default: 25, as in the paper.")] = None,
    rounding: Annotated[
        str | None, typer.Option(help="down (the paper; the default here) or nearest (the default of convert -K).")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The JSON file to write.")] = None,
    as_json: options.Json = False,
) -> None:
    """Parameters of an FS-neuron for an activation.

    Searched for the least error; ReLU's binary code in closed form.
    """
    result = fit_activation(
        _target(activation),
        steps,
        domain,
        max_spikes=max_spikes,
        spike_price=spike_price,
        offset=not no_offset,
        inputs=None if inputs is None else _inputs(inputs),
        method=method,
        bits=bits,
        effort=effort,
        seed=seed,
        alpha=alpha,
        rounding=rounding,
        progress=None,
    )
    if output is not None:
        result.parameters.save(output)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return
    _say(result)
    typer.echo(f"written to {output}" if output is not None else "nothing written; give -o FILE to keep the parameters")


def _target(text: str) -> str | Callable[[Tensor], Tensor]:
    """The activation's name, or the function that file.py:function names."""
    path, colon, name = text.rpartition(":")
    if not colon:
        return text
    try:
        found = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:
        raise FewSpikesError(f"cannot run {path}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise FewSpikesError(f"{path} has no function {name!r}; give file.py:function")
    function: Callable[[Tensor], Tensor] = found
    return function


def _inputs(text: str) -> str | tuple[float, float]:
    if text == "uniform":
        return text
    try:
        mean, variance = (float(part) for part in text.split(","))
    except ValueError:
        raise FewSpikesError(f"--inputs must be uniform or MEAN,VARIANCE; got {text!r}") from None
    return mean, variance


def _say(result: FitResult) -> None:
    p = result.parameters
    typer.echo(f"{p.activation}, K={p.K}: mean squared error {result.mse:.4g}, {result.seconds:.2f} s")
    if result.mse_main is not None and result.mse_outer is not None:
        typer.echo(f"  {result.mse_main:.4g} in the main region, {result.mse_outer:.4g} outside")
    proven = "proven" if result.max_error_proven else "of 200,001 points"
    typer.echo(f"  largest error {result.max_error:.4g} ({proven})")
    typer.echo(f"  {result.mean_spikes:.3f} spikes per neuron over its usual inputs, or those given")
    for name, values in (("T", p.T), ("h", p.h), ("d", p.d)):
        typer.echo(f"  {name} = {' '.join(f'{value:.6g}' for value in values)}")
    typer.echo(f"  offset = {p.offset:.6g}")
