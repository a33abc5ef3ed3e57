# Two images from one file, both complete with the demo model:
#
#     docker build --target cpu  -t ringserve .
#     docker build --target cuda -t ringserve:cuda .

ARG PYTHON_IMAGE=python:3.12-slim
# The same, with the compiler that the native kernels take; none of it reaches an image.
ARG BUILD_IMAGE=python:3.12

# What is copied here is all that an installation reads; .dockerignore lets nothing else in.
FROM ${BUILD_IMAGE} AS source
RUN python -m venv /opt/ringserve
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY engine engine
COPY server server

FROM source AS build-cpu
# "2.13.0+cpu" ranks above "2.13.0", so this index wins over the CUDA wheels of the default one.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/ringserve/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu .

FROM source AS build-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/ringserve/bin/pip install .

# What both images share. No sources: an interpreter, and a virtual environment to come.
FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 ringserve \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin ringserve \
    && install --directory --owner=10001 --group=10001 --mode=0755 /var/cache/ringserve
ENV PATH=/opt/ringserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RINGSERVE_CACHE_DIR=/var/cache/ringserve \
    HF_HOME=/var/cache/ringserve/huggingface
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /home/ringserve
EXPOSE 8000
STOPSIGNAL SIGTERM
# /health answers from the first second on, also while the model loads; /ready says when it has.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, sys, http.client as http; connection = http.HTTPConnection('127.0.0.1', int(os.environ.get('RINGSERVE_PORT') or 8000), timeout=4); connection.request('GET', '/health'); sys.exit(connection.getresponse().status != 200)"]
ENTRYPOINT ["ringserve"]
# Beyond loopback a key is needed: without RINGSERVE_API_KEY (or --no-auth) it refuses to start.
CMD ["serve", "--host", "0.0.0.0"]

# Needs nothing of CUDA but the driver, which the container runtime brings: the wheels hold the rest, but
# for the C compiler with which triton makes the launchers of its kernels when they are first used.
FROM runtime AS cuda
USER 0
# A release's mirror keeps one version of each, which a pin would outlive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/ringserve /opt/ringserve
RUN ringserve pull

# Last, so that it is what `docker build .` makes.
FROM runtime AS cpu
COPY --from=build-cpu /opt/ringserve /opt/ringserve
RUN ringserve pull
