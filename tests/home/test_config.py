"""Reading config.toml and config.yaml: defaults, published shapes, and every problem with its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from visor_actors.home.config import LoadedConfig, Origin, describe_changes, load_config, value_of
from visor_actors.home.config_keys import ACTORS, CONFIG_KEYS, SECTIONS
from visor_actors.home.effective import effective
from visor_actors.home.errors import ConfigurationInvalid, Problem
from visor_actors.home.kinds import TakesEffect
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import ActorOverrides, Hook, LogMode, OnExit, Verify
from visor_actors.home.templates import section_of


def load(root: Path, text: str, *, name: str = "config.toml", **environ: str) -> LoadedConfig:
    (root / name).write_text(text)
    return load_config(HomeLayout(root), environ=environ)


def problems(root: Path, text: str, *, name: str = "config.toml", **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationInvalid) as raised:
        load(root, text, name=name, **environ)
    assert raised.value.exit_code == 78
    return raised.value.problems


def test_an_empty_file_means_every_default(tmp_path: Path) -> None:
    config = load(tmp_path, "").config

    assert config.max_number_of_first_connection_retries == 175_000
    assert config.max_number_of_restart_connection_retries == 10
    assert config.max_number_of_restarts == 3
    assert config.restarts_delay_seconds == 5
    assert config.restarts_reset_after_seconds == 3600
    assert config.stop_delay_seconds == 0
    assert config.stop_signal_timeout_seconds == 15
    assert config.poll_interval_seconds == 2
    assert config.on_exit is OnExit.STOP
    assert config.upgrade_folders == {}
    assert config.auto_install.enabled
    assert config.auto_install.api_url == "https://api.github.com"
    assert config.auto_install.verify is Verify.IF_AVAILABLE
    assert config.auto_install.max_size_mib == 1024
    assert config.supervision.max_restarts == 5
    assert config.supervision.window_seconds == 60
    assert config.supervision.delay_seconds == 0.2
    assert config.supervision.max_delay_seconds == 30
    assert (config.logs.mode, config.logs.max_size_mib, config.logs.keep) == (LogMode.INHERIT, 100, 10)
    assert config.api.listen is None
    assert config.sentry.dsn is None
    assert config.hooks.pre_upgrade is None


EVERYTHING = """
maxNumberOfFirstConnectionRetries = 1
maxNumberOfRestartConnectionRetries = 2
maxNumberOfRestarts = 0
restartsDelaySeconds = 0.25
restartsResetAfterSeconds = 0
stopDelaySeconds = 1.5
stopSignalTimeoutSeconds = 4
pollIntervalSeconds = 0.05
onExit = "detach"
[upgradeFolders]
"v1.2.3+dev" = "one"
[autoInstall]
enabled = false
repositoryOwner = "me"
repository = "node"
apiUrl = "http://127.0.0.1:8080"
tokenFile = "secrets/token"
verify = "required"
checksumAsset = "SUMS"
publicKey = "RWQ"
maxSizeMiB = 5
source = "https://mirror.invalid/{tag}/{asset}"
[autoInstall.checksums]
"v1/node.zip" = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
[autoInstall.asset]
name = "node.zip"
binaryName = "node"
[supervision]
maxRestarts = 0
windowSeconds = 10
delaySeconds = 1
maxDelaySeconds = 2
[supervision.actors.installer]
maxRestarts = 9
[supervision.actors."process:core"]
delaySeconds = 3
[logs]
mode = "files"
maxSizeMiB = 1
keep = 0
level = "debug"
format = "json"
[api]
listen = "0.0.0.0:8080"
tokenFile = "/etc/token"
[sentry]
dsn = "https://abcdef@sentry.invalid/1"
environment = "mainnet"
sampleRate = 0.5
[hooks]
preUpgrade = ["/bin/pre", "x"]
preUpgradeTimeoutSeconds = 1
postUpgrade = ["/bin/post"]
onAlert = ["/bin/alert", "--token", "hidden"]
onAlertTimeoutSeconds = 2
postUpgradeTimeoutSeconds = 3
"""


def test_every_key_can_be_set(tmp_path: Path) -> None:
    loaded = load(tmp_path, EVERYTHING)
    config = loaded.config

    assert set(loaded.origins.values()) == {Origin.FILE}
    assert config.max_number_of_restarts == 0
    assert config.restarts_delay_seconds == 0.25
    assert config.on_exit is OnExit.DETACH
    assert config.upgrade_folders == {"v1.2.3+dev": "one"}
    assert config.auto_install.token_file == tmp_path / "secrets" / "token"
    assert config.auto_install.checksums["v1/node.zip"].startswith("sha256:01")
    assert config.supervision.actors == {
        "installer": ActorOverrides(max_restarts=9),
        "process:core": ActorOverrides(delay_seconds=3.0),
    }
    assert config.api.token_file == Path("/etc/token")
    assert config.hooks.pre_upgrade == Hook(argv=("/bin/pre", "x"), timeout_seconds=1.0)
    assert config.hooks.on_alert == Hook(argv=("/bin/alert", "--token", "hidden"), timeout_seconds=2.0)


def test_yaml_says_the_same_as_toml(tmp_path: Path) -> None:
    import tomli
    import yaml

    home = tmp_path / "yaml"
    home.mkdir()
    from_yaml = load(home, yaml.safe_dump(tomli.loads(EVERYTHING)), name="config.yaml").config
    (tmp_path / "toml").mkdir()
    from_toml = load(tmp_path / "toml", EVERYTHING).config

    assert msgspec.structs.replace(from_yaml.auto_install, token_file=None) == msgspec.structs.replace(
        from_toml.auto_install, token_file=None
    )
    assert from_yaml.hooks == from_toml.hooks
    assert from_yaml.supervision == from_toml.supervision
    assert from_yaml.max_number_of_restarts == 0


def test_both_files_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    (problem,) = problems(tmp_path, "")
    assert problem.found == "config.toml and config.yaml"


def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """\
maxNumberOfRestarts = "3"
maxNumberOfRestart = 3
pollIntervalSeconds = 0.001
  onExit = "stpo"
[upgradeFolders]
v1 = "../elsewhere"
[autoInstal]
enabled = true
[logs]
mode = "files"
enabled = true
[hooks]
preUpgrade = ["a",
  3]
postUpgrade = "notify me"
"""
    found = problems(tmp_path, text)

    assert [(one.line, one.column, one.key) for one in found] == [
        (1, 1, "maxNumberOfRestarts"),
        (2, 1, "maxNumberOfRestart"),
        (3, 1, "pollIntervalSeconds"),
        (4, 3, "onExit"),
        (6, 1, "upgradeFolders.v1"),
        (7, 1, "autoInstal"),
        (11, 1, "logs.enabled"),
        (14, 3, "hooks.preUpgrade[2]"),
        (15, 1, "hooks.postUpgrade"),
    ]
    assert [one.suggestion for one in found] == [
        "write 3 without quotes",
        "did you mean maxNumberOfRestarts?",
        None,
        "did you mean stop?",
        None,
        "did you mean autoInstall?",
        "the key belongs in [autoInstall]",
        'write "3" in quotes',
        'write ["notify", "me"]',
    ]
    assert found[2].found == "0.001"
    assert found[2].allowed == "must be a number from 0.05 to 3600"
    assert str(found[0]).startswith(f"{tmp_path}/config.toml:1:1: maxNumberOfRestarts: ")


def test_problems_in_yaml_have_places_too(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "maxNumberOfRestarts: many\nautoInstall:\n  verify: off\nlogs:\n  mod: files\n",
        name="config.yaml",
    )
    assert [(one.line, one.column, one.key, one.suggestion) for one in found] == [
        (1, 1, "maxNumberOfRestarts", None),
        (3, 3, "autoInstall.verify", 'write "off" in quotes'),
        (5, 3, "logs.mod", "did you mean mode?"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a = \n", 1, "no valid TOML"),
        ("maxNumberOfRestarts = 1\nmaxNumberOfRestarts = 2\n", 2, "no valid TOML"),
        ("[logs]\nkeep = 1\n[logs]\n", 3, "no valid TOML"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.line == line
    assert words in problem.allowed


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [\n", 2), ("- a\n", 1), ("logs:\n  keep: 1\n  keep: 2\n", 3), ("a: &x [*x, b: c: d]\n", 1)],
)
def test_what_is_no_yaml_or_says_a_key_twice_is_told_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    assert problems(tmp_path, text, name="config.yaml")[0].line == line


@pytest.mark.parametrize(
    "value",
    ["true", "-1", "1.5", "nan", "inf", "1979-05-27", '""', "[]", "{}", str(2**63 - 1)],
)
def test_a_count_takes_only_whole_numbers_in_range(tmp_path: Path, value: str) -> None:
    (problem,) = problems(tmp_path, f"maxNumberOfRestarts = {value}\n")
    assert problem.allowed.startswith("must be a whole number from 0")


@pytest.mark.parametrize("value", ["true", "-0.1", "nan", "inf", "-inf", '"1"', str(2**63 - 1)])
def test_seconds_take_only_finite_numbers_in_range(tmp_path: Path, value: str) -> None:
    (problem,) = problems(tmp_path, f"restartsDelaySeconds = {value}\n")
    assert problem.allowed.startswith("must be a number from 0")


def test_a_whole_number_written_as_a_fraction_is_explained(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "maxNumberOfRestarts = 3.0\n")
    assert problem.suggestion == "write 3"


@pytest.mark.parametrize("folder", ["current", ".visor", "a/b", "..", "", "config.toml/x"])
def test_an_upgrade_folder_is_one_plain_name(tmp_path: Path, folder: str) -> None:
    assert problems(tmp_path, f'[upgradeFolders]\n"v1" = "{folder}"\n')[0].line == 2


def test_a_secret_of_the_wrong_shape_is_not_repeated(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[sentry]\ndsn = "my-secret-value"\n')
    assert "my-secret-value" not in str(problem)


def test_an_address_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[api]\nlisten = "0.0.0.0:8080"\n')
    assert problem.line == 2
    assert problem.suggestion is not None
    assert "api.tokenFile" in problem.suggestion
    for local in ("127.0.0.1:1", "localhost:2", "[::1]:3", "127.8.8.8:4"):
        assert load(tmp_path, f'[api]\nlisten = "{local}"\n').config.api.listen == local


def test_the_longest_delay_must_not_be_shorter_than_the_first(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[supervision]\ndelaySeconds = 60\n")
    assert problem.line == 2


def test_an_unknown_actor_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[supervision.actors.instaler]\nmaxRestarts = 1\n")
    assert problem.suggestion == "did you mean installer?"
    assert all(actor in problem.allowed for actor in ACTORS)


def test_the_old_table_of_assets_is_understood_with_a_warning(tmp_path: Path) -> None:
    text = (
        "[autoInstall]\nenabled = true\n"
        '[autoInstall.assets.vega]\nasset_name = "vega-linux.zip"\nbinary_name = "vega-node"\n'
    )
    loaded = load(tmp_path, text)
    assert loaded.config.auto_install.asset_name == "vega-linux.zip"
    assert loaded.config.auto_install.binary_name == "vega-node"
    assert len(loaded.warnings) == 1

    flat = load(tmp_path, '[autoInstall.assets]\nname = "a.zip"\nbinaryName = "a"\n')
    assert flat.config.auto_install.asset_name == "a.zip"


def test_an_old_table_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[autoInstall.assets]\nnonsense = "x"\n')
    assert problem.key == "autoInstall.assets"


def test_a_table_of_the_nodes_own_configuration_is_ignored_with_a_warning(tmp_path: Path) -> None:
    assert "Admin" in load(tmp_path, "[Admin.Server]\nEnabled = true\n").warnings[0]


def test_upper_and_lower_case_do_not_matter_but_are_warned_of(tmp_path: Path) -> None:
    loaded = load(tmp_path, "MaxNumberOfRestarts = 8\n[AutoInstall]\nEnabled = false\n")
    assert loaded.config.max_number_of_restarts == 8
    assert not loaded.config.auto_install.enabled
    assert len(loaded.warnings) == 3
    (problem,) = problems(tmp_path, "MaxNumberOfRestarts = 8\nmaxNumberOfRestarts = 9\n")
    assert problem.line == 2


# As published for the original visor; facts of their shape, with other paths.
PUBLISHED = {
    "validator": """
maxNumberOfRestarts = 1
maxNumberOfFirstConnectionRetries = 100
stopSignalTimeoutSeconds = 60
restartsDelaySeconds = 10
[autoInstall]
  enabled = false
""",
    "non-validator": """
[autoInstall]
  enabled = true
  [autoInstall.asset]
    name = "vega-linux-amd64.zip"
    binaryName = "vega"
""",
    "block explorer": "maxNumberOfFirstConnectionRetries = 43200\n",
    "mainnet": """
maxNumberOfFirstConnectionRetries = 172800
maxNumberOfRestarts = 3
restartsDelaySeconds = 5
stopDelaySeconds = 0
stopSignalTimeoutSeconds = 15
[upgradeFolders]
  "vX.X.X" = "vX.X.X"
[autoInstall]
  enabled = true
  repositoryOwner = "vegaprotocol"
  repository = "vega"
  [autoInstall.asset]
    name = "vega-linux-amd64.zip"
    binaryName = "vega"
""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_load_without_a_warning(tmp_path: Path, name: str) -> None:
    loaded = load(tmp_path, PUBLISHED[name])
    assert loaded.warnings == ()


def test_what_a_published_configuration_leaves_out_has_its_default_and_not_zero(tmp_path: Path) -> None:
    config = load(tmp_path, PUBLISHED["block explorer"]).config
    assert config.max_number_of_first_connection_retries == 43_200
    assert config.max_number_of_restart_connection_retries == 10
    assert config.stop_signal_timeout_seconds == 15


def test_the_release_follows_the_brand_that_runs(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    assert loaded.config.auto_install.repository == "fury"
    (tmp_path / "genesis").mkdir()
    (tmp_path / "genesis" / "run-config.toml").write_text('[vega.binary]\npath = "vega"\n')
    loaded = load(tmp_path, "")
    assert loaded.config.auto_install.repository_owner == "vegaprotocol"
    assert loaded.config.auto_install.asset_name.startswith("vega-linux-")
    assert loaded.origins["autoInstall.repository"] is Origin.BRAND
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "run-config.yaml").write_text("zeta:\n  binary: {path: zeta}\n")
    (tmp_path / "current").symlink_to("v2")
    assert load(tmp_path, "").config.auto_install.repository == "zeta"


def test_the_dsn_may_come_from_the_environment_but_the_file_goes_first(tmp_path: Path) -> None:
    loaded = load(tmp_path, "", SENTRY_DSN="https://env123@sentry.invalid/1")
    assert loaded.config.sentry.dsn == "https://env123@sentry.invalid/1"
    assert loaded.origins["sentry.dsn"] is Origin.ENVIRONMENT
    loaded = load(
        tmp_path,
        '[sentry]\ndsn = "https://file123@sentry.invalid/1"\n',
        SENTRY_DSN="https://env123@sentry.invalid/1",
    )
    assert loaded.config.sentry.dsn == "https://file123@sentry.invalid/1"
    (problem,) = problems(tmp_path, "", SENTRY_DSN="nonsense-secret")
    assert "SENTRY_DSN" in str(problem.file)
    assert "nonsense-secret" not in str(problem)


def test_a_missing_unreadable_or_strange_file_is_a_problem_and_never_blocks(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    with pytest.raises(ConfigurationInvalid, match="does not exist"):
        load_config(layout)
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigurationInvalid, match="no regular file"):
        load_config(layout)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigurationInvalid, match="a folder"):
        load_config(layout)
    (tmp_path / "config.toml").rmdir()
    (tmp_path / "config.toml").write_bytes(b"a = 1\n\xff\xfe\n")
    with pytest.raises(ConfigurationInvalid, match=r":2: .*UTF-8"):
        load_config(layout)
    (tmp_path / "config.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigurationInvalid, match="too long"):
        load_config(layout)
    (tmp_path / "config.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigurationInvalid, match=r"config\.toml"):
        load_config(layout)
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbfmaxNumberOfRestarts = 4\n")
    assert load_config(layout).config.max_number_of_restarts == 4


def test_every_key_says_when_a_change_takes_effect(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    before = load(tmp_path / "b", "").config
    (tmp_path / "a").mkdir()
    after = load(tmp_path / "a", EVERYTHING).config

    changes = describe_changes(before, after)

    changed = {change.key for change in changes}
    for key in CONFIG_KEYS:
        assert any(name == key.path or name.startswith(f'{key.path}."') for name in changed), key.path
    assert all(isinstance(change.takes_effect, TakesEffect) for change in changes)
    assert describe_changes(after, after) == ()


def test_entries_of_free_tables_change_one_by_one(tmp_path: Path) -> None:
    before = load(tmp_path, '[upgradeFolders]\nv1 = "a"\nv2 = "b"\n').config
    after = load(tmp_path, '[upgradeFolders]\nv1 = "a"\nv2 = "c"\nv3 = "d"\n').config
    assert [(one.key, one.old, one.new) for one in describe_changes(before, after)] == [
        ('upgradeFolders."v2"', "b", "c"),
        ('upgradeFolders."v3"', "not set", "d"),
    ]


def test_no_secret_is_shown_anywhere(tmp_path: Path) -> None:
    text = EVERYTHING.replace("https://mirror.invalid", "https://user:pazzwort@mirror.invalid")
    loaded = load(tmp_path, text)
    shown = [
        repr(loaded),
        *(row.value for row in effective(loaded)),
        *(str(change) for change in describe_changes(load(tmp_path, "").config, loaded.config)),
    ]
    for secret in ("abcdef@", "hidden", "pazzwort"):
        for text in shown[1:]:
            assert secret not in text
    assert "abcdef@" not in shown[0]
    assert "hidden" not in shown[0]


def test_the_effective_table_has_every_key_with_its_value_and_origin(tmp_path: Path) -> None:
    rows = {row.key: row for row in effective(load(tmp_path, "maxNumberOfRestarts = 4\n"))}
    assert set(rows) == {key.path for key in CONFIG_KEYS}
    assert (rows["maxNumberOfRestarts"].value, rows["maxNumberOfRestarts"].origin) == ("4", Origin.FILE)
    assert (rows["logs.keep"].value, rows["logs.keep"].origin) == ("10", Origin.DEFAULT)
    assert rows["autoInstall.repository"].origin is Origin.BRAND


def test_the_table_of_keys_is_whole(tmp_path: Path) -> None:
    config = load(tmp_path, "").config
    paths = [key.path for key in CONFIG_KEYS]
    assert len(paths) == len(set(paths))
    for key in CONFIG_KEYS:
        assert ".".join(section_of(key)) in SECTIONS
        assert key.doc.endswith((".", "..."))
        if key.default is not None:
            assert value_of(config, key) == key.default, key.path
        else:
            assert key.default_text is not None, key.path


def test_a_good_configuration_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(EVERYTHING)
    code = (
        "import sys, json, pathlib\n"
        "from visor_actors.home.config import load_config\n"
        "from visor_actors.home.layout import HomeLayout\n"
        f"load_config(HomeLayout(pathlib.Path({str(tmp_path)!r})))\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    modules = set(json.loads(output))
    assert not modules & {"tomlkit", "yaml", "difflib", "sqlite3", "visor_actors.home.toml_places", "asyncio"}


def test_a_version_that_yaml_takes_for_a_number_keeps_its_spelling(tmp_path: Path) -> None:
    loaded = load(tmp_path, "upgradeFolders:\n  1.20: v1\n  on: v2\n", name="config.yaml")
    assert loaded.config.upgrade_folders == {"1.20": "v1", "on": "v2"}


@pytest.mark.parametrize(
    "text", ["null: 1\n", "true: 1\n", "? [a]\n: 1\n", "\0", "&a x: *a\n", "!!python/x y: 1\n"]
)
def test_strange_yaml_is_a_problem_and_never_a_crash(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text, name="config.yaml")


def test_anchors_that_multiply_cost_no_more_than_their_text(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert len(problems(tmp_path, "\n".join(lines), name="config.yaml")) == 60


@pytest.mark.parametrize("depth", [100, 300, 1000, 100_000])
def test_deep_nesting_is_a_problem_and_never_a_crash(tmp_path: Path, depth: int) -> None:
    text = "x = " + "[" * depth + "]" * depth + "\n"
    assert problems(tmp_path, text)
    (tmp_path / "config.toml").unlink()
    if depth <= 1000:
        assert problems(tmp_path, text.replace("=", ":"), name="config.yaml")
