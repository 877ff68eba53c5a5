"""`fewspikes fit`: parameters for an activation, with their error."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fewspikes.cli import options
from fewspikes.fitting import fit as fit_activation

EXAMPLE = "Example: fewspikes fit relu -K 6 --alpha 10 --rounding nearest -o relu.json"


def fit(
    activation: Annotated[str, typer.Argument(metavar="ACTIVATION", help="relu, relu6, silu or sigmoid.")],
    steps: Annotated[int | None, typer.Option("-K", help="Time steps, 1 to 24. Default: the paper's.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The range of a ReLU. Default: 25, as in the paper.")] = None,
    rounding: Annotated[
        str, typer.Option(help="down (the paper; the default here) or nearest (the default of convert -K).")
    ] = "down",
    domain: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Where the error is measured.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The JSON file to write.")] = None,
    as_json: options.Json = False,
) -> None:
    """Parameters of an FS-neuron for an activation.

    ReLU in closed form, SiLU and sigmoid as published.
    """
    result = fit_activation(activation, steps, domain, alpha=alpha, rounding=rounding)
    if output is not None:
        result.parameters.save(output)
    if as_json:
        content = asdict(result) | {"parameters": result.parameters.to_json()}
        typer.echo(json.dumps(content))
        return
    p = result.parameters
    typer.echo(f"{p.activation}, K={p.K}: mean squared error {result.mse:.4g}")
    if result.mse_main is not None and result.mse_outer is not None:
        typer.echo(f"  {result.mse_main:.4g} in the main region, {result.mse_outer:.4g} outside")
    typer.echo(
        f"  {result.mean_spikes:.3f} spikes per neuron over the inputs of the paper's Fig. 7, or else uniform ones"
    )
    for name, values in (("T", p.T), ("h", p.h), ("d", p.d)):
        typer.echo(f"  {name} = {' '.join(f'{value:.6g}' for value in values)}")
    typer.echo(f"written to {output}" if output is not None else "nothing written; give -o FILE to keep the parameters")
