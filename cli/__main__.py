"""`python -m pgqueue.cli` is `pgq`."""

from .main import main

main()
