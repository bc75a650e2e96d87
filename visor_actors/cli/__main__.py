"""``python -m visor_actors.cli``: the command line without its installed script."""

from visor_actors.cli.main import main

main()
