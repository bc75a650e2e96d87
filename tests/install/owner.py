"""An owner of an installer job as a process of its own, to be killed: ``python -m tests.install.owner <
ORDER``.

Prints ``job PID`` when the job runs and its outcome at the end.
"""

from __future__ import annotations

import sys

from visor_actors.install.launch import launch_job
from visor_actors.install.messages import encode
from visor_actors.install.order import InstallOrder


def main() -> None:
    order = InstallOrder.from_line(sys.stdin.buffer.readline())
    with launch_job(order) as job:
        print(f"job {job.pid}", flush=True)
        for _ in job.messages():
            pass
        assert job.outcome is not None
        sys.stdout.buffer.write(encode(job.outcome))


if __name__ == "__main__":
    main()
