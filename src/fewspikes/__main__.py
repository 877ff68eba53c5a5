"""`python -m fewspikes` is the command `fewspikes`."""

from fewspikes.cli import main

main()
