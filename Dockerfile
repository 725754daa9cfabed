# The server in a container. For a CPU, or with --build-arg VARIANT=cuda for NVIDIA's GPUs:
#
#   docker build -t musilingo .
#   docker run --rm -p 127.0.0.1:8000:8000 musilingo
#
#   docker build -t musilingo:cuda --build-arg VARIANT=cuda .
#   docker run --rm --gpus all -p 127.0.0.1:8000:8000 musilingo:cuda
#
# Flags of `musilingo serve` may follow the name of the image. Models are kept in the
# volume /models.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY requirements.lock ./
RUN pip install -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY musilingo_jax musilingo_jax
# The versions of JAX's plugin for GPUs are those that belong to the locked JAX.
RUN case "$VARIANT" in \
      cpu) extras=serve ;; \
      cuda) extras=serve,cuda ;; \
      *) echo "VARIANT=$VARIANT: choose cpu or cuda" >&2; exit 1 ;; \
    esac && pip install --constraint requirements.lock ".[$extras]"

FROM python:${PYTHON}-slim-bookworm
RUN useradd --create-home --uid 10001 musilingo \
 && install --directory --owner=musilingo --group=musilingo /models
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    XDG_CACHE_HOME=/models/cache
# By number, which needs no list of users to be known as not root.
USER 10001
WORKDIR /home/musilingo
VOLUME /models
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
# Only what `docker run -p` publishes is reached from outside the container.
ENTRYPOINT ["musilingo", "serve", "--host=0.0.0.0"]
CMD []
