"""What the actor runtime raises.

::

    ActorError
    ├── SpecInvalid            a supervision tree that cannot be run; all problems at once
    ├── SystemAlreadyRan       run() a second time
    ├── AskFailed
    │   ├── AskTimedOut        no answer within the timeout
    │   └── ReceiverDied       the receiver ended, or does not run, so nobody will answer
    ├── BlockingAskInActor     an actor asked and would have blocked its own inbox
    ├── WrongThread            a context was used outside its actor's thread
    ├── DescriptorClosed       a watched file descriptor was closed before it was unwatched
    └── SupervisorBug          a transition that the tables do not know: an error of this package

No exception of an actor ever crosses to another thread; it arrives as a
:class:`~visor_actors.actor.failure.Failure`.
"""

from __future__ import annotations

from visor_actors.actor.failure import Failure


class ActorError(Exception):
    """Base of everything this package raises."""


class SpecInvalid(ActorError):
    """The supervision tree cannot be run. ``problems`` names each fault with the id and the field."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("the supervision tree is not valid: " + "; ".join(problems))
        self.problems = problems


class SystemAlreadyRan(ActorError):
    """A system runs once. Make a new :class:`~visor_actors.actor.ActorSystem` to run the tree again."""


class AskFailed(ActorError):
    """Base of the ways in which a blocking ask ends without an answer."""

    def __init__(self, message: str, *, receiver: str, failure: Failure) -> None:
        super().__init__(message)
        self.receiver = receiver
        self.failure = failure


class AskTimedOut(AskFailed):
    """Nobody answered in time. The receiver may still handle the request later."""


class ReceiverDied(AskFailed):
    """The receiver crashed, was stopped, or does not run. Ask again once it is back."""


class BlockingAskInActor(ActorError):
    """An actor must not wait for another one: use ``context.request`` and handle the reply as a message."""


class WrongThread(ActorError):
    """This part of a context belongs to the actor's own thread. Other threads may only send messages."""


class DescriptorClosed(ActorError):
    """A watched descriptor was closed. Call ``context.unwatch(fd)`` before closing it: its number may be
    reused at once."""

    def __init__(self, fd: int) -> None:
        super().__init__(f"file descriptor {fd} was closed while it was watched; unwatch it first")
        self.fd = fd


class SupervisorBug(ActorError):
    """A supervisor's table has no such transition. Please report it with the message."""

    def __init__(self, subject: str, state: object, event: object) -> None:
        super().__init__(f"{subject}: no transition from {state} on {event}")
        self.subject = subject
        self.state = state
        self.event = event
