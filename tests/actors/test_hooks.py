"""The operator's hooks: what they are told, and that none of them can hang visor."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from visor_actors.actors.hooks import LINES_KEPT, run_hook
from visor_actors.home.settings import Hook


def python(code: str, *, timeout: float = 30.0) -> Hook:
    return Hook(argv=(sys.executable, "-S", "-c", code), timeout_seconds=timeout)


def test_a_hook_gets_its_variables_and_its_last_lines_are_kept() -> None:
    code = f"import os\nfor n in range({LINES_KEPT * 2}): print(n)\nprint(os.environ['VISOR_UPGRADE_TAG'])"
    result = run_hook(python(code), {"VISOR_UPGRADE_TAG": "v2.0.0"})
    assert result.problem is None
    assert result.lines[-1] == "v2.0.0"
    assert len(result.lines) == LINES_KEPT


@pytest.mark.parametrize(
    ("code", "words"),
    [("raise SystemExit(3)", "exit code 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
def test_a_hook_that_fails_says_how(code: str, words: str) -> None:
    result = run_hook(python(f"print('here', flush=True)\n{code}"), {})
    assert result.problem is not None
    assert words in result.problem
    assert result.lines == ("here",)


def test_a_hook_that_hangs_is_ended_with_everything_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    code = f"""
import os, subprocess, sys, time
file = open({str(fifo)!r}, "w")
sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleeper, pass_fds=[file.fileno()])
time.sleep(600)
"""
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(fifo.read_text()))
    reader.start()
    result = run_hook(python(code, timeout=1.0), {})
    assert result.problem is not None
    assert "did not end within" in result.problem
    reader.join(20)
    assert seen == [""], "the last writer is gone"


def test_a_hook_that_does_not_exist_says_so() -> None:
    result = run_hook(Hook(argv=("/nonexistent/hook",), timeout_seconds=5.0), {})
    assert result.problem is not None
    assert "/nonexistent/hook" in result.problem or "cannot be started" in result.problem


def test_a_cancelled_hook_ends() -> None:
    cancel = threading.Event()
    cancel.set()
    result = run_hook(python("import time; time.sleep(600)"), {}, cancel)
    assert result.problem is not None
