"""The program a shim runs: ``python -I -S main.py SLOT_FOLDER [LINGER_SECONDS]``.

Kept this small because Python never caches the compiled form of a program, only of what it imports: compiling
the whole shim at each start would leave 4 MiB of memory behind in it.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(__file__.rpartition("/visor_actors/")[0] or ".")
    from visor_actors.shim.service import serve

    # All is written and closed: to take the interpreter apart would only delay whoever waits for our end.
    os._exit(serve(sys.argv[1:]))
