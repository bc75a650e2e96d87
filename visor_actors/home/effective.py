"""What is in force, key by key, for people to read."""

from __future__ import annotations

from msgspec import Struct

from visor_actors.home.config import LoadedConfig, Origin, value_of
from visor_actors.home.config_keys import CONFIG_KEYS
from visor_actors.home.kinds import Key, TakesEffect
from visor_actors.home.masking import display


class SettingRow(Struct, frozen=True, kw_only=True):
    """One key: its effective value and its default as texts (secrets masked), and where the value comes
    from.
    """

    key: str
    value: str
    default: str
    origin: Origin
    takes_effect: TakesEffect
    doc: str


def effective(loaded: LoadedConfig) -> tuple[SettingRow, ...]:
    """A row for every key, in the order of the table."""
    return tuple(
        SettingRow(
            key=key.path,
            value=display(key, value_of(loaded.config, key)),
            default=default_text(key),
            origin=loaded.origins[key.path],
            takes_effect=key.takes_effect,
            doc=key.doc,
        )
        for key in CONFIG_KEYS
    )


def default_text(key: Key) -> str:
    """The default of ``key`` as a text."""
    return key.default_text if key.default_text is not None else display(key, key.default)
