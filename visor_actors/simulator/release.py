"""Builds the simulated node: one executable file, alone or packed as a release asset.

The file carries the node's compiled code, because a test that starts hundreds of nodes cannot wait for a
thousand lines to be compiled each time; the source is in it too, for an interpreter of another version at the
same path.
"""

from __future__ import annotations

import base64
import importlib.util
import marshal
import sys
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

from visor_actors.simulator.faults import VersionFaults, faults_text

_SOURCE = Path(__file__).with_name("node.py")
_SHEBANG_LIMIT = 127  # of old kernels; newer ones take 255

_TEMPLATE = """\
{shebang}
# A simulated {brand} node of the visor-actors project; its source is visor_actors/simulator/node.py.
VERSION = "{version}"
BRAND = "{brand}"
from _frozen_importlib_external import MAGIC_NUMBER
from binascii import a2b_base64
if MAGIC_NUMBER == {magic!r}:
    from marshal import loads
    code = loads(a2b_base64("{code}"))
else:
    from zlib import decompress
    code = compile(decompress(a2b_base64("{source}")), "{filename}", "exec")
exec(code)
"""


def build_binary(
    path: Path, *, version: str, brand: str = "fury", commit: str = "", faults: VersionFaults | None = None
) -> Path:
    """Write an executable simulated node to ``path`` (its folder is created) and return ``path``.

    The file plays a core node, and with ``datanode`` as its first argument a data node; under a name that
    starts with ``data-node`` it is the stand-alone data node. It may be copied, renamed and zipped.
    ``faults`` change what its ``version`` command does, for the life of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(_image(version, brand, commit, faults_text(version=faults), sys.executable))
    temporary.chmod(0o755)
    temporary.replace(path)
    return path


def build_asset_zip(
    path: Path,
    *,
    version: str,
    brand: str = "fury",
    name: str | None = None,
    commit: str = "",
    faults: VersionFaults | None = None,
) -> Path:
    """Write a release asset to ``path``: a zip with the node as its only entry ``name`` (the brand)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = zipfile.ZipInfo(name or brand, date_time=(2024, 1, 1, 0, 0, 0))
    entry.external_attr = 0o100755 << 16
    entry.create_system = 3
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, _image(version, brand, commit, faults_text(version=faults), sys.executable))
    return path


@lru_cache(maxsize=64)
def _image(version: str, brand: str, commit: str, baked_faults: str, executable: str) -> bytes:
    source = _SOURCE.read_text(encoding="utf-8")
    constants = {"VERSION": version, "BRAND": brand, "COMMIT": commit, "BAKED_FAULTS": baked_faults}
    lines = source.split("\n")
    for name, value in constants.items():
        index = next(i for i, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[index] = f"{name} = {value!r}"
    baked = "\n".join(lines)
    code = compile(baked, str(_SOURCE), "exec", dont_inherit=True)
    text = _TEMPLATE.format(
        shebang=_shebang(executable),
        brand=brand,
        version=version,
        magic=importlib.util.MAGIC_NUMBER,
        code=base64.b64encode(marshal.dumps(code)).decode(),
        source=base64.b64encode(zlib.compress(baked.encode())).decode(),
        filename=_SOURCE.name,
    )
    return text.encode()


def _shebang(executable: str) -> str:
    line = f"#!{executable} -IS"
    if len(line) <= _SHEBANG_LIMIT and " " not in executable:
        return line
    # To the shell the next line is a command, to Python a string; exec keeps the process id.
    return f"#!/bin/sh\n'''exec' \"{executable}\" -IS \"$0\" \"$@\"\n' '''"
