"""The configuration reference of the documentation, made from the tables of keys.

``python -m visor_actors.home.reference > docs/configuration.md`` writes it; a test says when it is out of
date.
"""

from __future__ import annotations

from visor_actors.home.config_keys import CONFIG_KEYS, SECTIONS
from visor_actors.home.effective import default_text
from visor_actors.home.kinds import Key, Tables, describe
from visor_actors.home.run_config_keys import BINARY_KEYS, RPC_KEYS
from visor_actors.home.templates import section_of

_INTRODUCTION = """\
# Configuration reference

<!-- Made from the code: python -m visor_actors.home.reference > docs/configuration.md -->

Two kinds of file configure visor, each in TOML or YAML (never both beside each other):

* `config.toml` in the home says what visor does. It is read again whenever it changes. A bad edit is
  reported, with file, line and key, and the last good configuration stays in force.
* `run-config.toml` in each upgrade folder says what is run from that folder. It is read before a start.

A key that is absent has its default. An unknown key is an error, with the key that was probably meant. Upper
and lower case of a key may differ, as in the original visor; that is warned of. Relative paths are relative
to the folder of the file. `visor-actors config check` reports every problem at once, `config show` prints
what is in force and where each value comes from, `config schema` prints a JSON Schema for your editor.
"""

_RUN_CONFIG = """\
## run-config.toml

The first table bears the brand: `[fury.binary]`, `[vega.binary]`, `[zeta.binary]` or any other
lower-case word. `[data_node.binary]` is there when a data node runs beside the core, and takes the same
keys. `name`, before the first table, is a name for people.
"""

_OLD = {
    "`[autoInstall.assets]`, also with a brand's table in it and `asset_name`, `binary_name`": (
        "read as `[autoInstall.asset]`, with a warning"
    ),
    "`[Admin]` and tables in it": "the node's own configuration: ignored, with a warning",
    "a key in other upper and lower case": "read, with a warning",
    'a data node\'s `path = "vega data-node"`': (
        "the binary `vega` with the subcommand `datanode`, unless a file has that very name"
    ),
    "a missing key": "its default; the original visor took 0",
}


def reference() -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION, "## config.toml"]
    section: tuple[str, ...] | None = None
    for key in CONFIG_KEYS:
        if section_of(key) != section:
            section = section_of(key)
            name = ".".join(section)
            title = f"### `[{name}]`" if name else "### Before the first table"
            parts += ["", title, "", SECTIONS[name], "", *_HEAD]
        parts.append(_row(key, key.path if isinstance(key.kind, Tables) else key.parts[-1]))
    parts += ["", _RUN_CONFIG]
    for title, keys in (("[<brand>.binary]", BINARY_KEYS), ("[<brand>.rpc]", RPC_KEYS)):
        parts += [f"### `{title}`", "", *_HEAD, *(_row(key, key.path) for key in keys), ""]
    parts += ["## Old shapes", "", "| found | what happens |", "|---|---|"]
    parts += [f"| {found} | {happens} |" for found, happens in _OLD.items()]
    return "\n".join(parts) + "\n"


_HEAD = ("| key | default | value | in force | |", "|---|---|---|---|---|")


def _row(key: Key, name: str) -> str:
    allowed = describe(key.kind).removeprefix("must be ")
    cells = (f"`{name}`", default_text(key), allowed, key.takes_effect.value, key.doc)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(reference(), end="")
