# rayscribe as a service and as a worker beside an archive. Research drafts, not a medical device.
#
#   docker build -t rayscribe .
#   docker build -t rayscribe:cuda --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
#
# PIP_OPTIONS may name an index of CPU builds of PyTorch, which make the image several GB smaller.
# Built nowhere yet: written and linted only (docs/service.md says what was run).

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
# hadolint ignore=DL3008  # the distribution's current Python is wanted, with its security fixes
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/rayscribe
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
ARG PIP_OPTIONS=""
# hadolint ignore=SC2086  # several options are several words
RUN /opt/rayscribe/bin/pip install --no-cache-dir ${PIP_OPTIONS} '.[serve,postgresql,clinical,pacs,dicom,bert,vlm]'

FROM ${BASE}
# hadolint ignore=DL3008  # as above
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-log-init --home-dir /var/lib/rayscribe --create-home rayscribe
COPY --from=build /opt/rayscribe /opt/rayscribe
# What is written lies in the volume, so that the root file system may be read-only; nothing is fetched from a model hub.
ENV PATH=/opt/rayscribe/bin:$PATH \
    XDG_STATE_HOME=/var/lib/rayscribe \
    XDG_CACHE_HOME=/var/lib/rayscribe/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1
VOLUME ["/var/lib/rayscribe"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["rayscribe"]
CMD ["serve", "--model", "/models/default", "--host", "0.0.0.0", "--keys", "/run/secrets/keys"]
