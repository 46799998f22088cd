"""The command line: one verb a command, imported on call. Data on standard output, all else on standard error.

Exit codes: 0 yes, 1 no (a verdict), 2 usage or settings, 3 could not, 130 interrupted.
"""

from mendstream.cli.group import main

__all__ = ["main"]
