"""The service's metrics for Prometheus. No label holds data from a client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServiceMetrics:
    """One registry per service, so that two in one process do not collide."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("route", "method")
        self.requests = Counter(
            "rayscribe_requests", "Answered requests.", (*labels, "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "rayscribe_request_seconds",
            "From the request's head to the end of the answer.",
            labels,
            registry=self._registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
        )
        self.batches = Histogram(
            "rayscribe_batch_studies",
            "Studies that were written together.",
            registry=self._registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self.at_work = Gauge("rayscribe_requests_at_work", "Requests that are worked on.", registry=self._registry)
        self.waiting = Gauge("rayscribe_jobs_waiting", "Asynchronous studies that wait.", registry=self._registry)
        self.loaded = Gauge("rayscribe_models_loaded", "Models in memory.", registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)
