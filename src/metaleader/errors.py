"""The error of a user's input."""


class UserError(ValueError):
    """Bad input; the message says what was received, what was expected and how to fix it.

    The command prints the message in one line and ends with exit code 2.
    """
