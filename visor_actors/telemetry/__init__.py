"""What visor tells the world: events, and their subscribers: its own log, counters for metrics, Sentry.

Import the modules by name; ``telemetry.sentry`` alone imports something heavy, and only when a DSN is set.
"""
