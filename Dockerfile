# Packlight as an image, for a CPU (VARIANT=cpu) or for CUDA (VARIANT=cuda).
#
#   docker build --build-arg VARIANT=cpu -t packlight .
#
# `make image` adds what a label cannot find out by itself: the commit and the time.
#
# CUDA comes in PyTorch's own wheels, so both variants stand on the same slim base. No stage needs a compiler: every
# locked dependency is a wheel.

FROM python:3.11-slim-bookworm AS builder

ARG VARIANT=cuda
# Read by the cpu variant only, and for torch alone: everything else comes from pip's default index in both variants.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /build
COPY deploy/requirements/${VARIANT}.txt requirements.txt
# `--no-deps`: the lock file is complete, and what it does not name is not installed.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$VARIANT" = cpu ]; then set -- --find-links "$TORCH_CPU_INDEX/torch/"; fi; \
    pip install --require-hashes --no-deps --only-binary :all: "$@" -r requirements.txt

# `--build-arg HEIF=1` reads HEIC. Not the default: HEVC is patented, and the wheel carries x265 (GPL-2.0). The hashes are
# those of the wheels for x86-64 and for ARM.
ARG HEIF
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$HEIF" ]; then \
    echo "pillow-heif==1.8.1 \
    --hash=sha256:a94f02ccb61042820e9fc60b2a427d85377c6017d27b7594d33f26b1c78918e5 \
    --hash=sha256:446b58aae154e4a084124d383317fed1cc869ae402d1acea91c377ad18da0a6b" > heif.txt \
    && pip install --require-hashes --no-deps --only-binary :all: -r heif.txt; fi

COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
COPY loadtest loadtest
# Built by the setuptools of the lock file: build isolation would fetch another, unlocked. Then pip has done its work.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --no-build-isolation . && pip check && pip uninstall --yes pip


FROM builder AS checkpoint

# A hub id to carry in the image, so that it starts without a network. A gated one needs
# `--secret id=hf_token,src=FILE`, which no layer keeps. HF_ENDPOINT: a mirror of the hub.
ARG BAKE_MODEL
ARG BAKE_REVISION
ARG HF_ENDPOINT
WORKDIR /baked
RUN --mount=type=secret,id=hf_token \
    if [ -f /run/secrets/hf_token ]; then HF_TOKEN="$(cat /run/secrets/hf_token)" && export HF_TOKEN; fi; \
    if [ -n "$BAKE_MODEL" ]; then HF_HOME=/baked python -c \
    'import sys; from model.checkpoint.hub import download; download(sys.argv[1], revision=sys.argv[2] or None)' \
    "$BAKE_MODEL" "$BAKE_REVISION"; fi


FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin packlight \
    && install --directory --owner packlight /models

COPY --from=builder /opt/venv /opt/venv
COPY --from=checkpoint /baked /opt/baked
WORKDIR /app
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/entrypoint

ARG BAKE_MODEL
ARG BAKE_REVISION
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BAKED_MODEL=${BAKE_MODEL} \
    BAKED_REVISION=${BAKE_REVISION} \
    HF_HOME=/models \
    HF_HUB_DISABLE_TELEMETRY=1 \
    PACKLIGHT_HOST=0.0.0.0 \
    PACKLIGHT_PORT=8000

# The version of pyproject.toml, which `python -m deploy.version` writes here too. A label of another ends the build.
ARG VERSION=0.1.0
RUN [ "$(packlight --version)" = "packlight $VERSION" ] || { echo "VERSION is $VERSION: not what is installed"; exit 1; }
ARG GIT_COMMIT=unknown
# RFC 3339, in UTC.
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Packlight" \
      org.opencontainers.image.description="Image embeddings at any resolution, with no padding" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.created="${CREATED}"

USER 10001
VOLUME /models
EXPOSE 8000
STOPSIGNAL SIGTERM
# A checkpoint of gigabytes may have to be downloaded first. Until then a failing check counts for nothing; the first
# that passes makes the container healthy.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15m --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PACKLIGHT_PORT']), timeout=2); \
c.request('GET', '/readyz'); \
sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["entrypoint"]
CMD ["serve"]
