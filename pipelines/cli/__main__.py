"""`python -m pipelines.cli` is `careloom`."""

from pipelines.cli import main

main()
