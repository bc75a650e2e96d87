"""The home folder: where everything is, what is configured, what runs, and what has happened so far.

Other packages import the modules by name (``home.config``, ``home.journal``); nothing here is imported
before it is used.
"""
