"""The clock of the machine is stepped by a day, forward and back, under a running visor and its node."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import Visor, make_home, wait_for

# Adds what the file says to the time of day, and to no other clock. Setting the machine's own would be felt
# by everybody on it.
STEPPED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("TEST_CLOCK"), "re");
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += offset();
    return result;
}
"""
DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time of day of those that run in its ``environment``."""

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "TEST_CLOCK": str(self.file)}

    def step(self, seconds: int) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here, to make a clock that can be stepped")
    made = Clock(library=tmp_path / "clock.so", file=tmp_path / "clock")
    (tmp_path / "clock.c").write_text(STEPPED)
    words = [compiler, "-shared", "-fPIC", "-o", str(made.library), str(tmp_path / "clock.c"), "-ldl"]
    subprocess.run(words, check=True)
    made.step(0)
    return made


def wait_answering(visor: Visor, *, other_than: int | None = None) -> int:
    """Wait until a core runs and answers; return its pid."""

    def answering() -> int | None:
        status = visor.status()
        answers = status is not None and status.rpc is not None and status.rpc.connected
        pid = visor.running_pid() if answers else None
        return None if pid == other_than else pid

    return int(wait_for(answering, f"a core that answers\n{visor.tail()}"))


@pytest.mark.parametrize("days", [1, -1])
def test_a_stepped_clock_touches_no_node_and_makes_visor_forget_no_failure(
    tmp_path: Path, clock: Clock, days: int
) -> None:
    home = make_home(tmp_path / "home")
    home.configure(restartsResetAfterSeconds=3600, restartsDelaySeconds=0.2, maxNumberOfRestarts=2)
    with Visor(home=home, environment=clock.environment) as visor:
        pid = wait_answering(visor)
        for failures, offset in ((1, days * DAY), (2, 0)):
            clock.step(offset)
            height = home.report().blocks
            wait_for(lambda height=height: home.report().blocks > height + 3, "more blocks")  # type: ignore[misc]
            assert wait_answering(visor) == pid
            os.kill(pid, signal.SIGKILL)
            pid = wait_answering(visor, other_than=pid)
            status = visor.status()
            assert status is not None
            assert (status.node.restarts, status.alarms) == (failures, ())
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
    first, second, _ = home.history("binary.started")
    assert days * (second.at - first.at) > DAY / 2, "visor felt the step"
