"""What a loop may report: at once, then ever more rarely."""

from __future__ import annotations

from visor_actors.telemetry.rate_limit import RateLimit

A, B = ("a",), ("b",)


def test_the_first_goes_through_and_a_loop_ever_more_rarely() -> None:
    limit = RateLimit(first=60, longest=240)
    sent = [now for now in range(1200) if limit.admit(A, now) is not None]
    assert sent == [0, 60, 180, 420, 660, 900, 1140]


def test_the_next_says_how_many_were_held_back() -> None:
    limit = RateLimit(first=60)
    assert limit.admit(A, 0) == 0
    assert [limit.admit(A, now) for now in range(1, 60)] == [None] * 59
    assert limit.admit(A, 60) == 59
    assert limit.admit(A, 200) == 0


def test_other_causes_are_not_held_back() -> None:
    limit = RateLimit()
    assert limit.admit(A, 0) == 0
    assert limit.admit(B, 0) == 0


def test_after_a_long_quiet_time_a_cause_starts_afresh() -> None:
    limit = RateLimit(first=60, longest=240)
    for now in (0, 60, 180):
        limit.admit(A, now)
    assert limit.admit(A, 10_000) == 0
    assert limit.admit(A, 10_060) == 0


def test_ever_new_causes_are_bounded_within_a_minute_and_none_is_forgotten() -> None:
    limit = RateLimit(burst=5)
    assert sum(limit.admit((str(n),), 0.0) is not None for n in range(100)) == 5
    assert limit.admit(("99",), 60.0) == 0


def test_memory_is_bounded_and_the_oldest_cause_is_forgotten_first() -> None:
    limit = RateLimit(burst=10_000, most=10)
    for number in range(100):
        limit.admit((str(number),), 0.0)
    assert limit.admit(("99",), 1.0) is None
    assert limit.admit(("0",), 1.0) == 0
