"""Access control for every request: host, origin, API key, load and size; and one log line each.

The log names the route, never the address: method, route, status, milliseconds and a random id.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayscribe.serve.keys import owner_of
from rayscribe.serve.metrics import ServiceMetrics
from rayscribe.serve.problems import Problem
from rayscribe.serve.settings import LOOPBACK, ServeConfig

_LOG = logging.getLogger("rayscribe.serve")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}


class AccessGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, config: ServeConfig, keys: Mapping[str, str], metrics: ServiceMetrics) -> None:
        """`keys`: SHA-256 by name; when empty, no key is required."""
        self._app, self._config, self._keys, self._measures = app, config, keys, metrics
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, request = time.monotonic(), uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request"] = request
        status = 500

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope["state"]["answered"] = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request
                headers.setdefault("Cache-Control", "no-store")
                for name, value in _SAFE.items():
                    headers[name] = value
            await send(message)

        try:
            await self._admitted(scope, receive, answered)
        finally:
            # An unmatched address may contain anything.
            route = scope["route"].path if "route" in scope else "other"
            self._note(route, str(scope["method"]), status, time.monotonic() - begin, request)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope)
        if refused is not None:
            await refused.response(scope["state"]["request"])(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self._at_work += 1
        self._measures.at_work.set(self._at_work)
        try:
            # Twice the limit: once for a slow body, once for the work. A client still sending or reading after that is dropped.
            async with asyncio.timeout(2 * self._config.max_seconds + 10):
                await self._app(scope, self._bounded(scope, receive), send)
        except TimeoutError:
            if "answered" not in scope["state"]:
                late = Problem(408, "the request did not arrive in time")
                await late.response(scope["state"]["request"])(scope, receive, send)
        finally:
            self._at_work -= 1
            self._measures.at_work.set(self._at_work)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers, path = Headers(scope=scope), str(scope["path"])
        host = headers.get("host", "")
        if not self._keys and _name(f"//{host}") not in LOOPBACK:
            # DNS rebinding: a foreign page whose name resolves to this machine could act for the user.
            return Problem(421, "this service accepts requests to localhost only")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return Problem(403, "requests from other pages are rejected")
        scope["state"]["owner"] = ""
        if self._keys and (path.startswith("/v1/") or path == "/metrics"):
            kind, _, key = headers.get("authorization", "").partition(" ")
            owner = owner_of(key.strip(), self._keys) if kind.lower() == "bearer" else None
            if owner is None:
                return Problem(401, "send an API key: `Authorization: Bearer KEY`")
            scope["state"]["owner"] = owner
        if scope["method"] == "POST" and self._at_work >= self._config.queue:
            return Problem(429, f"{self._at_work} requests are in progress; try again later", retry_after=1)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most(scope) * 1_000_000:
            return self._too_large(scope)
        return None

    def _most(self, scope: Scope) -> int:
        """Largest body in megabytes; 1 for routes without images."""
        is_form = Headers(scope=scope).get("content-type", "").startswith("multipart/")
        return self._config.max_megabytes if is_form else 1

    def _too_large(self, scope: Scope) -> Problem:
        return Problem(413, f"at most {self._most(scope)} MB per request of this kind")

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Cuts off a body that states no length, or a wrong one."""
        read, most = 0, self._most(scope) * 1_000_000

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise self._too_large(scope)
            return message

        return bounded

    def _note(self, route: str, method: str, status: int, seconds: float, request: str) -> None:
        method = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._measures.requests.labels(route, method, str(status)).inc()
        self._measures.seconds.labels(route, method).observe(seconds)
        if route not in ("/healthz", "/readyz", "/metrics"):
            _LOG.info("%s %s %d %.0f ms %s", method, route, status, 1000 * seconds, request)


def _name(address: str) -> str | None:
    """The host of an address; None when it has none or is malformed."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
