"""The command `fewspikes`: parses, calls the API, prints."""

from fewspikes.cli.main import main

__all__ = ["main"]
