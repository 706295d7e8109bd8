"""`rayscribe serve` and `rayscribe api-key`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path

from rayscribe.cli.arguments import parsed
from rayscribe.errors import DISCLAIMER, need_packages


def serve(arguments: list[str]) -> None:
    from rayscribe.serve.settings import ServeConfig

    config = parsed(ServeConfig, arguments, "serve")
    need_packages("serve", "fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "multipart")
    from rayscribe.serve.start import start

    start(config, notify=lambda address: print(f"{address}  (Ctrl-C ends it)\n{DISCLAIMER}", flush=True))


def api_key(arguments: list[str]) -> None:
    import tyro

    def add(name: tyro.conf.Positional[str], keys: Path) -> None:
        """Makes an API key for `serve`. It is printed once; the file holds its hash.

        Args:
            name: whose key it is, as the file names it
            keys: the file to write to, and to give to `serve --keys`
        """
        from rayscribe.serve.keys import add_key

        print(add_key(name, keys))

    parsed(add, arguments, "api-key")
