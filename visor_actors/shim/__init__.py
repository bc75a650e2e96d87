"""The process that owns one binary: it starts it, waits for it, keeps its output and records its end.

``main.py`` is a program of its own, run as ``python -I -S main.py``: it uses the standard library only and
nothing here imports it. Its other end is ``visor_actors.node.shim_client``.
"""
