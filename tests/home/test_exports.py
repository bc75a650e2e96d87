"""What the package says it exports is there, and is what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import pytest

from visor_actors import home


def test_every_exported_name_is_there_and_no_module() -> None:
    __import__("visor_actors.home.initialise")
    for name in home.__all__:
        assert not isinstance(getattr(home, name), ModuleType), name
    with pytest.raises(AttributeError):
        home.nothing  # noqa: B018  # looking at it is the test


def test_importing_the_package_imports_none_of_its_modules() -> None:
    code = (
        "import json, sys, visor_actors.home, visor_actors.telemetry\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not [
        name for name in json.loads(output) if name.startswith(("visor_actors.home.", "sqlite3", "sentry"))
    ]
