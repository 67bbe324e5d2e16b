"""`python -m metaleader` is the command `metaleader`."""

from metaleader.commands.main import main

main()
