"""`python -m rayscribe`."""

from rayscribe.cli import main

main()
