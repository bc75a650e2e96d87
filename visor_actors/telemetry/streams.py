"""Standard input, output and error, whoever started visor."""

from __future__ import annotations

import os


def keep_standard_streams() -> None:
    """Open /dev/null where a descriptor of 0, 1, 2 is closed. To be called before anything else is opened.

    Otherwise the next file that is opened, the journal for one, would be standard error, and the log would be
    written into it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is given out, and all lower ones are taken: it is this one.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
