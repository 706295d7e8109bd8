"""`python -m rayscribe`."""

from rayscribe.cli.main import main

main()
