"""Gets a release into a folder: source, download, verification, archives, staging.

Others use :mod:`.order`, :mod:`.messages`, :mod:`.launch` and :mod:`.check`, which are cheap to import; the
rest runs only in a killable process of its own (``python -m visor_actors.install``): it needs requests,
cryptography, tomlkit.
"""
