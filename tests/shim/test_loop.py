"""The shim's loop, without a shim: who is called when descriptors come and go within one round."""

from __future__ import annotations

import os

from visor_actors.shim.loop import Loop


def test_what_happened_to_a_closed_descriptor_is_not_told_to_the_next_of_its_number() -> None:
    """A pidfd that got the number of a client's connection would otherwise report an end."""
    loop = Loop()
    first, second = os.pipe(), os.pipe()
    quiet = os.pipe()
    told: list[str] = []

    def replace_the_other(own: int, other: int) -> None:
        told.append("readable")
        loop.unwatch(other)
        os.close(other)
        os.dup2(quiet[0], other)
        loop.watch(other, lambda _: told.append("nothing has happened to this one"))
        loop.unwatch(own)

    loop.watch(first[0], lambda _: replace_the_other(first[0], second[0]))
    loop.watch(second[0], lambda _: replace_the_other(second[0], first[0]))
    for pipe in (first, second):
        os.write(pipe[1], b"x")
    loop.after(0.0, "end", lambda: setattr(loop, "ending", True))
    try:
        loop.run()
    finally:
        for fd in (*first, *second, *quiet):
            os.close(fd)
    assert told == ["readable"]
