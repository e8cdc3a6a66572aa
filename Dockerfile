# docker build --tag book . && docker run --rm --publish 8888:8888 book
# starts JupyterLab (make lab); any other target: docker run --rm book make report
FROM python:3.11-slim AS base
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 reader \
 && install -d -o reader -g reader /home/reader/book
USER 1000
WORKDIR /home/reader/book

FROM base AS book
# With an NVIDIA GPU: --build-arg PIP_EXTRA_INDEX_URL= here, and docker run --gpus all.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 JUPYTER_CONFIG_DIR=/home/reader/.jupyter
RUN mkdir "$JUPYTER_CONFIG_DIR" && printf '%s\n' 'c.ServerApp.ip = "0.0.0.0"' \
    'c.ServerApp.open_browser = False' > "$JUPYTER_CONFIG_DIR/jupyter_server_config.py"
COPY --chown=reader:reader Makefile constraints.txt pyproject.toml LICENSE LICENSE-TEXT README.md ./
COPY --chown=reader:reader src src
RUN make .venv/.installed \
 && .venv/bin/python -m pip install --quiet -c constraints.txt -e '.[lab]'
COPY --chown=reader:reader . .
EXPOSE 8888
CMD ["make", "lab"]
