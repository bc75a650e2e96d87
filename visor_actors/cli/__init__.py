"""The command line: one module a command, imported only when it is called.

:func:`visor_actors.cli.main.main` is the entry point; :mod:`visor_actors.cli.commands` lists the
commands.
"""
