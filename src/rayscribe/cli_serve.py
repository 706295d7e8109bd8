"""`rayscribe serve` and `rayscribe api-key`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path
from typing import Annotated

from rayscribe.arguments import parsed
from rayscribe.errors import DISCLAIMER, need_packages


def serve(arguments: list[str]) -> None:
    import tyro

    def serve(
        model: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction],
        host: str = "127.0.0.1",
        port: int = 8000,
        keys: Path | None = None,
        database: str = "",
        memory_gib: float = 8.0,
        queue: int = 32,
        jobs: int = 1000,
        batch: int = 8,
        max_images: int = 8,
        max_megabytes: int = 128,
        max_megapixels: int = 64,
        max_seconds: float = 300.0,
        keep_minutes: float = 60.0,
    ) -> None:
        """Serves models over HTTP: a page at /, the interface at /openapi.json.

        Args:
            model: a folder of a report model, a vision LLM or a classifier; may be given several times
            host: the address to listen at; anything but the loopback needs --keys
            port: the port to listen at
            keys: the file of `rayscribe api-key`
            database: where asynchronous studies are kept (an SQLAlchemy URL); SQLite in your state folder when empty
            memory_gib: bound of all loaded weights; the model that was used the longest ago makes room
            queue: requests that are worked on or wait; more are answered with 429
            jobs: asynchronous studies that wait; more are answered with 429
            batch: studies that are written at a time
            max_images: images of one study
            max_megabytes: size of one request
            max_megapixels: pixels of one image, in millions
            max_seconds: time of one request, or of one asynchronous study
            keep_minutes: how long the draft of an asynchronous study can be fetched
        """
        need_packages("serve", "fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "multipart")
        from rayscribe.serve.settings import ServeConfig
        from rayscribe.serve.start import start

        start(
            ServeConfig(
                models=model,
                host=host,
                port=port,
                keys=keys,
                database=database,
                memory_gib=memory_gib,
                queue=queue,
                jobs=jobs,
                batch=batch,
                max_images=max_images,
                max_megabytes=max_megabytes,
                max_megapixels=max_megapixels,
                max_seconds=max_seconds,
                keep_minutes=keep_minutes,
            ),
            say=lambda address: print(f"{address}  (Ctrl-C ends it)\n{DISCLAIMER}", flush=True),
        )

    parsed(serve, arguments, "serve")


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
