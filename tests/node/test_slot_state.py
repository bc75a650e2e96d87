"""Reading what a shim saved, against what a real shim saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.shim.conftest import SlotDriver, slot, wait_until
from visor_actors.node.shim_process import launch_shim
from visor_actors.node.slot_state import recorded_binary, was_ever_saved

__all__ = ["slot"]


def test_the_binary_of_a_real_shim_is_found_also_after_the_shim_died(slot: SlotDriver) -> None:
    assert recorded_binary(slot.folder) is None
    connection = slot.open()
    assert recorded_binary(slot.folder) is None
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    assert recorded_binary(slot.folder) == binary
    slot.kill_shim(connection)
    assert recorded_binary(slot.folder) == binary
    again = slot.open()
    again.stop(signal=9, timeout=0)
    slot.exit(again)
    assert recorded_binary(slot.folder) is None


def test_a_shim_that_comes_up_has_saved_nothing_before_a_visor_attaches(slot: SlotDriver) -> None:
    assert not was_ever_saved(slot.folder)
    slot.folder.mkdir()
    warm = launch_shim(slot.folder, linger=30)
    wait_until(lambda: (slot.folder / "shim.sock").exists())
    assert not was_ever_saved(slot.folder)
    slot.open()
    assert was_ever_saved(slot.folder)
    warm.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\0" * 50, b'{"serial":1,"end":1,"running":5}', b"\xff\n"]
)
def test_nonsense_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.0").write_bytes(content)
    assert recorded_binary(tmp_path) is None


def test_a_file_that_was_not_written_to_its_end_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "state.1").write_text(json.dumps({"serial": 1, "running": None, "end": 1}))
    (tmp_path / "state.0").write_text(json.dumps({"serial": 2, "running": {}, "end": 0}))
    assert recorded_binary(tmp_path) is None
