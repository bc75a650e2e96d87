"""``python -m visor_actors`` is ``visor-actors``."""

from visor_actors.cli.main import main

main()
