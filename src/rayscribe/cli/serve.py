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

    start(config, notify=lambda address: print(f"{address}  (Ctrl-C stops it)\n{DISCLAIMER}", flush=True))


def api_key(arguments: list[str]) -> None:
    import tyro

    def add(name: tyro.conf.Positional[str], keys: Path) -> None:
        """Makes an API key for `serve` and prints it once; the file keeps only its hash.

        Args:
            name: the owner of the key, as the file records it
            keys: the file to add the key to; pass it to `serve --keys`
        """
        from rayscribe.serve.keys import add_key

        print(add_key(name, keys))

    parsed(add, arguments, "api-key")
