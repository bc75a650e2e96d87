"""The node's life, decided without processes, threads or a clock."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from visor_actors.actors.addresses import Slot
from visor_actors.actors.messages import NodePhase, Occasion, RunOrder, StopPurpose
from visor_actors.actors.node_machine import (
    ArmDelay,
    Ask,
    BudgetChanged,
    CancelDelay,
    CountRestarts,
    DelayPassed,
    Down,
    Failed,
    Held,
    LaunchImpossible,
    LaunchPlanned,
    Leave,
    NodeEffect,
    NodeEvent,
    NodeMachine,
    NodeWedged,
    Ordered,
    PlanLaunch,
    RecycleAsked,
    SlotExited,
    SlotLost,
    SlotRefused,
    SlotReported,
    SlotStarted,
    SlotStatus,
    StableLongEnough,
    StartSlot,
    StopAsked,
    StopSlot,
    Up,
)

BOTH = frozenset(Slot)
CORE_ONLY = frozenset({Slot.CORE})
FOLDER = Path("/home/genesis")


class Driver:
    """Feeds a machine and remembers the effects of the last event."""

    def __init__(self, *, restarts_max: int = 3, wanted: frozenset[Slot] = BOTH) -> None:
        self.machine = NodeMachine(restarts_max=restarts_max)
        self.wanted = wanted
        self.effects: list[NodeEffect] = []

    def send(self, *events: NodeEvent) -> list[NodeEffect]:
        self.effects = [effect for event in events for effect in self.machine.handle(event)]
        return self.effects

    def report(self, *, running: frozenset[Slot] = frozenset()) -> list[NodeEffect]:
        return self.send(*(SlotReported(slot=slot, running=slot in running) for slot in Slot))

    def order(self, occasion: Occasion = Occasion.ANY_OTHER) -> list[NodeEffect]:
        order = RunOrder(ask=self.machine.ask, folder=FOLDER, occasion=occasion)
        return self.send(Ordered(order=order, wanted=self.wanted))

    def launch(self) -> list[NodeEffect]:
        return self.send(LaunchPlanned(ask=self.machine.ask))

    def bring_up(self) -> None:
        self.report()
        self.order()
        self.launch()
        self.send(*(SlotStarted(slot=slot) for slot in self.wanted))
        assert self.machine.phase is NodePhase.RUNNING

    def die(self, slot: Slot = Slot.CORE) -> list[NodeEffect]:
        return self.send(SlotExited(slot=slot, requested=False, how="ended by itself with exit code 1"))

    def stopped(self, *slots: Slot) -> list[NodeEffect]:
        return self.send(*(SlotExited(slot=slot, requested=True, how="has stopped") for slot in slots))


def test_nothing_is_asked_before_every_slot_has_reported() -> None:
    driver = Driver()
    assert driver.send(SlotReported(slot=Slot.CORE, running=False)) == []
    assert driver.send(SlotReported(slot=Slot.DATA_NODE, running=False)) == [Ask(ask=1)]


def test_a_node_that_runs_already_is_taken_over_and_not_started() -> None:
    driver = Driver()
    driver.report(running=BOTH)
    assert driver.order() == [Up(attached=True)]


def test_an_order_to_take_over_starts_nothing_when_the_node_is_gone_meanwhile() -> None:
    driver = Driver()
    driver.report(running=BOTH)
    ask = driver.machine.ask
    driver.report()
    assert driver.order(Occasion.TAKE_OVER) == [Ask(ask=ask + 1)], "whoever decided thought that it runs"
    assert driver.machine.phase is NodePhase.ASKING
    driver.report(running=BOTH)
    assert driver.order(Occasion.TAKE_OVER) == [Up(attached=True)]


def test_an_order_is_planned_then_every_wanted_slot_is_started() -> None:
    driver = Driver()
    driver.report()
    (plan,) = driver.order()
    assert isinstance(plan, PlanLaunch)
    assert driver.launch() == [StartSlot(slot=Slot.CORE), StartSlot(slot=Slot.DATA_NODE)]
    assert driver.send(SlotStarted(slot=Slot.CORE)) == []
    assert driver.send(SlotStarted(slot=Slot.DATA_NODE)) == [Up(attached=False)]


def test_what_turns_up_in_a_slot_while_a_start_is_planned_is_taken_over_and_not_started_again() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.report()
    driver.order()
    driver.send(SlotReported(slot=Slot.CORE, running=True))
    assert driver.launch() == [Ask(ask=2)]
    assert driver.order() == [Up(attached=True)]


def test_an_answer_to_an_older_question_is_ignored() -> None:
    driver = Driver()
    driver.report()
    stale = RunOrder(ask=driver.machine.ask - 1, folder=FOLDER)
    assert PlanLaunch not in map(type, driver.send(Ordered(order=stale, wanted=BOTH)))


def test_a_second_answer_to_the_same_question_starts_nothing_twice() -> None:
    driver = Driver()
    driver.report()
    driver.order()
    assert driver.order() == []


def test_while_held_the_node_is_not_started_and_an_order_ends_the_hold() -> None:
    driver = Driver()
    driver.report()
    driver.send(Held(ask=driver.machine.ask, reason="not prepared"))
    assert driver.machine.phase is NodePhase.HELD
    (plan,) = driver.order()
    assert isinstance(plan, PlanLaunch)


def test_one_failing_binary_stops_the_other_waits_and_asks_again() -> None:
    driver = Driver()
    driver.bring_up()
    effects = driver.die(Slot.DATA_NODE)
    assert CountRestarts(restarts=1) in effects
    assert StopSlot(slot=Slot.CORE) in effects
    assert Down() in effects
    assert driver.stopped(Slot.CORE) == [ArmDelay()]
    assert driver.send(DelayPassed()) == [Ask(ask=2)]


def test_exit_code_0_that_nobody_asked_for_is_a_failure_too() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    effects = driver.send(SlotExited(slot=Slot.CORE, requested=False, how="ended with exit code 0"))
    assert any(isinstance(effect, Failed) for effect in effects)


def test_an_exit_that_somebody_else_had_asked_for_is_no_failure_and_all_is_started_again() -> None:
    driver = Driver()
    driver.report(running=BOTH)
    driver.order()
    effects = driver.stopped(Slot.CORE)
    assert not any(isinstance(effect, Failed | CountRestarts) for effect in effects)
    assert StopSlot(slot=Slot.DATA_NODE) in effects
    assert driver.stopped(Slot.DATA_NODE) == [Ask(ask=2)]


def test_both_binaries_dying_at_once_is_one_failure() -> None:
    driver = Driver()
    driver.bring_up()
    effects = [*driver.die(Slot.CORE), *driver.die(Slot.DATA_NODE)]
    assert [effect for effect in effects if isinstance(effect, CountRestarts)] == [CountRestarts(restarts=1)]
    assert effects[-1] == ArmDelay()


def test_one_failure_more_than_the_budget_stops_the_node_and_gives_up() -> None:
    driver = Driver(restarts_max=1, wanted=CORE_ONLY)
    driver.bring_up()
    driver.die()
    driver.send(DelayPassed())
    driver.order()
    driver.launch()
    driver.send(SlotStarted(slot=Slot.CORE))
    effects = driver.die()
    assert isinstance(effects[-2], Leave | Down)
    leave = next(effect for effect in effects if isinstance(effect, Leave))
    assert leave.purpose is StopPurpose.GAVE_UP
    assert driver.machine.phase is NodePhase.GAVE_UP


def test_a_stable_node_starts_counting_from_zero() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    driver.die()
    assert driver.send(StableLongEnough()) == [CountRestarts(restarts=0)]


def test_a_larger_budget_of_a_reload_counts_at_once() -> None:
    driver = Driver(restarts_max=0, wanted=CORE_ONLY)
    driver.bring_up()
    driver.send(BudgetChanged(restarts_max=1))
    assert ArmDelay() in driver.die()


def test_a_stop_during_the_restart_delay_takes_effect_at_once() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    driver.die()
    effects = driver.send(StopAsked(reason="SIGTERM"))
    assert CancelDelay() in effects
    assert isinstance(effects[-1], Leave)
    assert driver.send(DelayPassed()) == [], "a delay that passes after all starts nothing"


def test_a_stop_during_a_start_stops_what_is_being_started() -> None:
    driver = Driver()
    driver.report()
    driver.order()
    driver.launch()
    effects = driver.send(StopAsked(reason="SIGTERM"))
    assert effects == [StopSlot(slot=Slot.CORE), StopSlot(slot=Slot.DATA_NODE)]
    assert driver.send(SlotStarted(slot=Slot.CORE)) == [], "the start that was under way is not news"
    assert isinstance(driver.stopped(Slot.CORE, Slot.DATA_NODE)[-1], Leave)


def test_a_stop_before_the_slots_are_known_waits_for_them_and_stops_what_runs() -> None:
    driver = Driver()
    assert driver.send(StopAsked(reason="SIGTERM")) == []
    effects = driver.report(running=CORE_ONLY)
    assert effects == [StopSlot(slot=Slot.CORE)]


def test_a_recycle_stops_both_and_asks_without_counting_or_waiting() -> None:
    driver = Driver()
    driver.bring_up()
    effects = driver.send(RecycleAsked(reason="upgrade"))
    assert [effect for effect in effects if isinstance(effect, StopSlot)] == [
        StopSlot(slot=Slot.CORE),
        StopSlot(slot=Slot.DATA_NODE),
    ]
    assert driver.stopped(Slot.CORE, Slot.DATA_NODE) == [Ask(ask=2)]
    assert driver.machine.restarts == 0


def test_a_core_that_kills_itself_while_being_recycled_is_no_failure() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    driver.send(RecycleAsked(reason="upgrade"))
    effects = driver.send(SlotExited(slot=Slot.CORE, requested=False, how="was killed by SIGKILL"))
    assert effects == [Ask(ask=2)]


def test_a_start_that_is_refused_counts_as_a_failure_and_ends_the_other() -> None:
    driver = Driver()
    driver.report()
    driver.order()
    driver.launch()
    effects = driver.send(SlotRefused(slot=Slot.DATA_NODE, problem="the executable is missing"))
    assert StopSlot(slot=Slot.CORE) in effects
    assert CountRestarts(restarts=1) in effects


def test_command_lines_that_cannot_be_made_count_as_a_failure() -> None:
    driver = Driver()
    driver.report()
    driver.order()
    effects = driver.send(LaunchImpossible(ask=driver.machine.ask, problem="no such height"))
    assert ArmDelay() in effects


def test_a_wedged_core_is_stopped_and_restarted_within_the_budget() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    effects = driver.send(NodeWedged(problem="does not answer"))
    assert StopSlot(slot=Slot.CORE) in effects
    assert driver.stopped(Slot.CORE) == [ArmDelay()]


def test_a_part_of_a_node_found_running_is_stopped_and_all_is_started() -> None:
    driver = Driver()
    driver.report(running=CORE_ONLY)
    effects = driver.order()
    assert StopSlot(slot=Slot.CORE) in effects
    assert driver.stopped(Slot.CORE) == [ArmDelay()]


def test_a_lost_shim_decides_nothing_until_its_successor_reports() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    assert driver.send(SlotLost(slot=Slot.CORE, problem="connection lost")) == []
    assert driver.send(SlotReported(slot=Slot.CORE, running=True)) == []
    assert driver.machine.phase is NodePhase.RUNNING


def test_a_slot_that_is_lost_while_a_start_is_planned_is_not_started_before_it_has_been_seen() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.report()
    driver.order()
    driver.send(SlotLost(slot=Slot.CORE, problem="connection lost"))
    assert driver.launch() == []
    effects = driver.send(SlotReported(slot=Slot.CORE, running=False))
    assert effects == [Ask(ask=driver.machine.ask)], "asked anew, and in time"


def test_a_report_that_crosses_the_start_order_repeats_the_order_once() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.report()
    driver.order()
    driver.launch()
    assert driver.send(SlotReported(slot=Slot.CORE, running=False)) == [StartSlot(slot=Slot.CORE)]
    effects = driver.send(SlotReported(slot=Slot.CORE, running=False))
    assert any(isinstance(effect, Failed) for effect in effects), "twice is no coincidence"


def test_a_running_binary_that_vanished_without_a_record_is_a_failure() -> None:
    driver = Driver(wanted=CORE_ONLY)
    driver.bring_up()
    effects = driver.send(SlotReported(slot=Slot.CORE, running=False))
    assert any(isinstance(effect, Failed) for effect in effects)


SLOTS = st.sampled_from(list(Slot))
EVENTS = st.one_of(
    st.builds(SlotReported, slot=SLOTS, running=st.booleans()),
    st.builds(SlotLost, slot=SLOTS, problem=st.just("lost")),
    st.builds(SlotStarted, slot=SLOTS),
    st.builds(SlotRefused, slot=SLOTS, problem=st.just("missing")),
    st.builds(SlotExited, slot=SLOTS, requested=st.booleans(), how=st.just("ended")),
    st.just("order"),
    st.just("launch"),
    st.builds(DelayPassed),
    st.builds(NodeWedged, problem=st.just("silent")),
    st.builds(StableLongEnough),
    st.builds(RecycleAsked, reason=st.just("upgrade")),
    st.builds(StopAsked, reason=st.just("SIGTERM")),
)


@given(st.lists(EVENTS, max_size=60), st.sampled_from([BOTH, CORE_ONLY]), st.integers(0, 3))
def test_whatever_happens_no_occupied_slot_is_started_and_nothing_starts_after_a_stop(
    events: list[NodeEvent | str], wanted: frozenset[Slot], restarts_max: int
) -> None:
    driver = Driver(restarts_max=restarts_max, wanted=wanted)
    machine = driver.machine
    stopping = False
    leaves = 0
    for event in events:
        before = dict(machine.slots)
        match event:
            case "order":
                effects = driver.order()
            case "launch":
                effects = driver.launch()
            case str():
                raise AssertionError(event)
            case _:
                effects = driver.send(event)
                stopping = stopping or isinstance(event, StopAsked)
        for effect in effects:
            match effect:
                case StartSlot(slot=slot):
                    assert not stopping, "nothing starts after a stop"
                    repeated = isinstance(event, SlotReported) and event.slot is slot and not event.running
                    assert before[slot] is SlotStatus.VACANT or repeated
                case Leave():
                    leaves += 1
                    assert not machine.occupied, "visor leaves when nothing runs"
                case CountRestarts(restarts=restarts):
                    assert 0 <= restarts <= restarts_max + 1
                case _:
                    pass
    assert leaves <= 1
