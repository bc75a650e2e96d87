"""Started without standard streams, as some service managers and cron replacements do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-", "0<&-", ""])
def test_a_file_never_becomes_a_standard_stream(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "journal"
    code = (
        "import os, sys\n"
        "from visor_actors.telemetry.streams import keep_standard_streams\n"
        "keep_standard_streams()\n"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "os.write(2, b'a line of the log')\n"
        "os.write(fd, b'%d' % fd)\n"
    )
    subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, code, str(file)],
        check=True,
        capture_output=True,
    )
    assert int(file.read_text()) > 2
