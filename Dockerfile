# Serves an artifact, without torch and without root; how to run it: docs/serve.md, "Containers".
#
# The tag names a version. To fix the very bytes, write python:3.11.15-slim-bookworm@sha256:... in both places, with the
# digest that `docker buildx imagetools inspect python:3.11.15-slim-bookworm` prints. Dependabot keeps either up to date.

FROM python:3.11.15-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv /opt/packages
# Only what serving needs, and no file whose hash is not in the lock. Code can change without this being run again.
COPY requirements.txt requirements-lock.txt requirements-postgresql.txt .ci/light_lock.py ./
# `--build-arg LOOKALIKE_STORE_CLIENT=postgresql`: the client of a vector database, too.
ARG LOOKALIKE_STORE_CLIENT=
RUN python light_lock.py > light.txt \
    && cat /dev/null ${LOOKALIKE_STORE_CLIENT:+requirements-$LOOKALIKE_STORE_CLIENT.txt} >> light.txt \
    && /opt/packages/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: --no-deps \
        --require-hashes -r light.txt \
    && /opt/packages/bin/pip uninstall --yes --quiet pip setuptools

FROM python:3.11.15-slim-bookworm
# What is downloaded from the Hub is kept in /cache: a new volume there belongs to this user, too.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lookalike \
    && install -d -o lookalike -g lookalike /cache
COPY --from=packages /opt/packages /opt/packages
WORKDIR /app
COPY app.py LICENSE ./
COPY retrieval retrieval
RUN /opt/packages/bin/python -m compileall -q retrieval

# LOOKALIKE_ARTIFACT says what is served: a folder, or owner/name[@revision] on the Hub; without it, the example.
# Everything is written to /tmp and /cache, so the rest can be read-only.
ENV PATH=/opt/packages/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860
USER 10001:10001
EXPOSE 7860
# There is no curl here. Once the artifact is loaded, /ready answers 200.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os, sys; here = http.client.HTTPConnection('127.0.0.1', int(os.environ['GRADIO_SERVER_PORT']), timeout=4); here.request('GET', '/ready'); sys.exit(here.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "retrieval"]
CMD ["serve"]
