"""The messages the actors exchange: frozen data, sent to addresses. A message is a hint; the truth is re-read on start."""

from __future__ import annotations
