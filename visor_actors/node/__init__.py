"""One node from visor's side: the custody of its binaries, what to start them with, and what they can be
asked.

Import its modules by name; each is light, and a visor that only polls needs few of them.
"""
