"""The page: static files of this package, without a build step or external resources."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent / "page"


def add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(FOLDER / "index.html")

    app.mount("/page", StaticFiles(directory=FOLDER), name="page")
