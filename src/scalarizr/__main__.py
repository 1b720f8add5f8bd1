"""`python -m scalarizr`: the command line."""

from scalarizr.cli.main import main

main()
