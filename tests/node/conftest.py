"""What the tests of a node's surroundings share."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is not a failing property.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
