"""The control API of a running visor: JSON over a private unix socket, and the read-only part over TCP.

:class:`~visor_actors.api.actor.ApiActor` serves it, :class:`~visor_actors.api.client.ControlClient`
talks to it. Both are imported from their modules: a command line that only asks must not load the
server.
"""
