from __future__ import annotations

import json

from tests.cli.running import Runner
from tests.cli.test_output import conforms
from tests.telemetry.sentry_receiver import receiving
from visor_actors.cli.reference import documents
from visor_actors.home.layout import HomeLayout


def test_one_test_event_arrives_and_is_reported_as_taken(run: Runner, layout: HomeLayout) -> None:
    with receiving() as receiver:
        layout.config_file.write_text(f'[sentry]\ndsn = "{receiver.dsn}"\n')
        ran = run("--home", layout.root, "config", "sentry-test", "--output", "json")
        document = json.loads(ran.out)
        assert receiver.expect("sentry.test")["event_id"] == document["detail"]
    conforms(documents()["config sentry-test"], document, "config sentry-test")
    assert (ran.code, document["result"]) == (0, "delivered")


def test_a_sentry_that_refuses_is_told(run: Runner, layout: HomeLayout) -> None:
    with receiving() as receiver:
        receiver.status = 403
        layout.config_file.write_text(f'[sentry]\ndsn = "{receiver.dsn}"\n')
        ran = run("--home", layout.root, "config", "sentry-test")
    assert ran.code == 1
    assert "did not take the test event (refused)" in ran.err
    assert "0123456789abcdef" not in ran.err


def test_without_a_dsn_nothing_is_sent(run: Runner, layout: HomeLayout) -> None:
    ran = run("--home", layout.root, "config", "sentry-test")
    assert ran.code == 1
    assert "SENTRY_DSN" in ran.err
