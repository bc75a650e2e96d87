"""The config watcher against a real folder, edited in every way that editors have."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from visor_actors.actor import Actor, ActorSystem, Address, ChildSpec, Context, SupervisorSpec
from visor_actors.actors.config_watcher import ConfigChanged, ConfigWatcherActor, ReloadConfig
from visor_actors.actors.reports import Board, ConfigReport
from visor_actors.home.config import load_config
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import VisorConfig
from visor_actors.telemetry.events import Event, EventBus, Severity
from visor_actors.testing import running
from visor_actors.testing.context import RecordingContext
from visor_actors.testing.probe import Probe

WATCHER = Address("config-watcher")


class Listener(Actor):
    """Stands for an actor that wants to know of changes."""

    def __init__(self, context: Context, probe: Probe) -> None:
        super().__init__(context)
        self._probe = probe

    def handle(self, message: object) -> None:
        self._probe.record(message)


class Watched:
    """A home, a watcher of it in a running system, and what came of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "config.toml"
        self.bus = EventBus()
        self.board = Board()
        self.told = Probe()
        self.events = Probe()
        self.applied: list[VisorConfig] = []
        self.bus.subscribe(self.events)
        self.layout = HomeLayout(root)
        self.initial = load_config(self.layout, environ={})
        self.system = ActorSystem(
            SupervisorSpec(
                id="root",
                children=(
                    ChildSpec(id="listener", factory=lambda context: Listener(context, self.told)),
                    ChildSpec(id=WATCHER.name, factory=self.watcher),
                ),
            ),
            on_event=lambda _event: None,
        )

    def watcher(self, context: Context) -> Actor:
        return ConfigWatcherActor(
            context,
            layout=self.layout,
            bus=self.bus,
            board=self.board,
            subscribers=(Address("listener"),),
            initial=self.initial,
            apply=self.applied.append,
        )

    def report(self) -> ConfigReport | None:
        return self.board.read("config", ConfigReport)

    def wait_for_restarts(self, number: int) -> ConfigChanged:
        return self.told.expect(ConfigChanged, lambda one: one.config.max_number_of_restarts == number)

    def event(self, name: str) -> Event:
        return self.events.expect(Event, lambda one: one.name == name)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    root = tmp_path / "home"
    root.mkdir()
    (root / "config.toml").write_text("maxNumberOfRestarts = 1\n")
    home = Watched(root)
    with running(home.system):
        home.events.wait_until(lambda: home.report() is not None)
        yield home


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    temporary = file.with_name(".config.toml.swp")
    temporary.write_text(text)
    temporary.rename(file)


def by_backup_and_new_file(file: Path, text: str) -> None:
    file.rename(file.with_name("config.toml~"))
    file.write_text(text)


def truncated_first_and_written_in_pieces(file: Path, text: str) -> None:
    with file.open("w") as stream:
        for character in text:
            stream.write(character)
            stream.flush()
            os.fsync(stream.fileno())


def deleted_and_made_again(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


@pytest.mark.parametrize(
    "edit",
    [
        in_place,
        by_rename,
        by_backup_and_new_file,
        truncated_first_and_written_in_pieces,
        deleted_and_made_again,
    ],
)
def test_an_edit_is_noticed_however_the_editor_writes(
    watched: Watched, edit: Callable[[Path, str], None]
) -> None:
    edit(watched.file, "maxNumberOfRestarts = 7\n")

    changed = watched.wait_for_restarts(7)

    assert [(one.key, one.old, one.new) for one in changed.changes] == [("maxNumberOfRestarts", "1", "7")]
    assert watched.applied[-1] == changed.config


def test_the_operator_is_told_which_keys_changed_and_when_each_takes_effect(watched: Watched) -> None:
    watched.file.write_text('maxNumberOfRestarts = 1\npollIntervalSeconds = 3\n[logs]\nmode = "files"\n')

    event = watched.event("config.changed")

    assert event.lines == (
        "pollIntervalSeconds: 2 -> 3, takes effect immediately",
        "logs.mode: inherit -> files, takes effect at the next start of the node",
    )


def test_a_bad_edit_is_reported_with_every_problem_and_the_last_good_one_stays(watched: Watched) -> None:
    watched.file.write_text('maxNumberOfRestarts = "7"\nmaxNumberOfRestart = 3\n')

    event = watched.event("config.refused")

    assert event.severity is Severity.ERROR
    assert len(event.lines) == 2
    assert "config.toml:1:1" in event.lines[0]
    assert "did you mean maxNumberOfRestarts?" in event.lines[1]
    watched.events.wait_until(lambda: (report := watched.report()) is not None and report.problem is not None)
    assert not watched.applied
    assert watched.told.count(ConfigChanged) == 0


def test_after_a_bad_edit_a_good_one_is_taken(watched: Watched) -> None:
    watched.file.write_text("nonsense")
    watched.event("config.refused")

    watched.file.write_text("maxNumberOfRestarts = 8\n")

    watched.wait_for_restarts(8)
    watched.events.wait_until(lambda: (report := watched.report()) is not None and report.problem is None)


def test_taking_a_bad_edit_back_says_that_all_is_well_again(watched: Watched) -> None:
    watched.file.write_text("nonsense")
    watched.event("config.refused")

    watched.file.write_text("maxNumberOfRestarts = 1\n")

    watched.event("config.restored")
    assert watched.told.count(ConfigChanged) == 0


def test_a_deleted_file_is_reported_and_taken_up_again_when_it_is_restored(watched: Watched) -> None:
    watched.file.unlink()
    assert "does not exist" in watched.event("config.refused").lines[0]

    watched.file.write_text("maxNumberOfRestarts = 4\n")

    watched.wait_for_restarts(4)


def test_a_folder_in_the_place_of_the_file_is_reported_and_survived(watched: Watched) -> None:
    watched.file.unlink()
    watched.file.mkdir()
    watched.events.expect(Event, lambda one: one.name == "config.refused" and "a folder" in one.lines[0])

    watched.file.rmdir()
    watched.file.write_text("maxNumberOfRestarts = 5\n")

    watched.wait_for_restarts(5)


def test_a_home_that_is_replaced_by_another_folder_is_followed(watched: Watched) -> None:
    other = watched.root.with_name("other")
    shutil.copytree(watched.root, other)
    (other / "config.toml").write_text("maxNumberOfRestarts = 6\n")

    watched.root.rename(watched.root.with_name("old"))
    other.rename(watched.root)
    watched.wait_for_restarts(6)

    watched.file.write_text("maxNumberOfRestarts = 9\n")
    watched.wait_for_restarts(9)


def test_a_burst_of_a_thousand_writes_ends_with_the_last_one(watched: Watched) -> None:
    for number in range(1000):
        watched.file.write_text(f"maxNumberOfRestarts = {number + 10}\n")

    watched.wait_for_restarts(1009)
    # Far fewer looks than writes: the burst was collected.
    assert watched.told.count(ConfigChanged) < 200


def test_a_file_behind_links_is_watched_where_it_really_is(tmp_path: Path) -> None:
    root, data = tmp_path / "home", tmp_path / "data"
    for folder in (root, data, data / "one", data / "two"):
        folder.mkdir()
    (data / "one" / "config.toml").write_text("maxNumberOfRestarts = 1\n")
    (data / "two" / "config.toml").write_text("maxNumberOfRestarts = 2\n")
    (data / "now").symlink_to("one")
    (root / "config.toml").symlink_to(data / "now" / "config.toml")
    home = Watched(root)
    with running(home.system):
        home.events.wait_until(lambda: home.report() is not None)

        (data / "one" / "config.toml").write_text("maxNumberOfRestarts = 3\n")
        home.wait_for_restarts(3)

        (data / "next").symlink_to("two")
        (data / "next").rename(data / "now")
        home.wait_for_restarts(2)

        (data / "two" / "config.toml").write_text("maxNumberOfRestarts = 4\n")
        home.wait_for_restarts(4)


def test_a_restarted_watcher_compares_with_what_is_in_force(watched: Watched) -> None:
    watched.file.write_text("maxNumberOfRestarts = 7\n")
    watched.wait_for_restarts(7)
    report = watched.report()

    def crash() -> None:
        raise RuntimeError("injected")

    watched.system.inject(WATCHER, crash)
    watched.events.wait_until(lambda: watched.report() is not report)
    watched.file.write_text("maxNumberOfRestarts = 1\n")

    changed = watched.wait_for_restarts(1)
    assert watched.told.count(ConfigChanged) == 2
    assert [(one.old, one.new) for one in changed.changes] == [("7", "1")]


def test_an_edit_made_while_the_watcher_was_down_is_found(watched: Watched) -> None:
    def edit_and_crash() -> None:
        by_rename(watched.file, "maxNumberOfRestarts = 3\n")
        raise RuntimeError("injected")

    watched.system.inject(WATCHER, edit_and_crash)

    watched.wait_for_restarts(3)


def test_it_can_be_told_to_look(watched: Watched) -> None:
    report = watched.report()
    watched.system.tell(WATCHER, ReloadConfig())
    watched.events.wait_until(lambda: watched.report() is not report)
    assert watched.told.count(ConfigChanged) == 0


def test_other_files_of_the_home_do_not_matter(watched: Watched) -> None:
    report = watched.report()
    for number in range(50):
        (watched.root / f"note-{number}").write_text("x")
    (watched.root / "current").symlink_to("genesis")

    watched.file.write_text("maxNumberOfRestarts = 2\n")
    watched.wait_for_restarts(2)

    # One look for the one edit, not one more for the others: the report was replaced once.
    assert watched.report() is not report
    assert watched.events.count(Event) == 1


def test_a_secret_that_changes_is_not_shown(watched: Watched) -> None:
    watched.file.write_text(
        'maxNumberOfRestarts = 1\n[sentry]\ndsn = "https://abcdef123456@sentry.invalid/1"\n'
    )

    event = watched.event("config.changed")

    assert event.lines == ("sentry.dsn: not set -> ********, takes effect immediately",)


def test_warnings_of_old_shapes_are_events(watched: Watched) -> None:
    watched.file.write_text(
        'maxNumberOfRestarts = 1\n[autoInstall.assets.vega]\nasset_name = "a.zip"\nbinary_name = "vega"\n'
    )

    assert "autoInstall.assets" in watched.event("config.warning").message
    report = watched.report()
    assert report is not None
    assert report.warnings


def test_without_a_descriptor_for_the_kernels_events_it_looks_from_time_to_time(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("maxNumberOfRestarts = 1\n")
    layout = HomeLayout(tmp_path)
    events = Probe()
    bus = EventBus()
    bus.subscribe(events)
    context = RecordingContext("config-watcher")
    watcher = ConfigWatcherActor(
        context,
        layout=layout,
        bus=bus,
        board=Board(),
        subscribers=(Address("listener"),),
        initial=load_config(layout, environ={}),
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        watcher.init()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert events.expect(Event, lambda one: one.name == "config.not-watched").next_step is not None

    (tmp_path / "config.toml").write_text("maxNumberOfRestarts = 2\n")
    watcher.handle(context.fire("poll"))

    (changed,) = context.messages_to("listener")
    assert isinstance(changed, ConfigChanged)
    assert changed.config.max_number_of_restarts == 2
    assert "poll" in context.timers
    watcher.terminate()
