"""`python -m metaleader` is the command `metaleader`."""

from metaleader.cli import main

main()
