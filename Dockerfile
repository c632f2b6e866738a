# u2pl in a container, for a folder of the host that is mounted at /work: docs/docker.md
#
#   docker build --tag u2pl .
#   docker run --rm -v "$PWD:/work" u2pl doctor

# Any image with apt, Python 3.11 or newer, and its venv and pip.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS wheel
COPY . /source
RUN python3 -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source

FROM ${BASE}
# git: a project is kept in it. tini: Ctrl-C and `docker stop` reach the command, which saves and ends.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git tini \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'

# What u2pl needs comes first and stays a layer of its own, so that a changed line of u2pl fetches nothing again.
# `--build-arg PIP_EXTRA_INDEX_URL=...` names a further index, as the one where PyTorch has its smaller builds without CUDA.
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/u2pl/bin:$PATH
COPY pyproject.toml constraints.txt /opt/u2pl/
RUN python3 -m venv /opt/u2pl \
    && python3 -c "import tomllib; project = tomllib.load(open('/opt/u2pl/pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['lite'], sep='\n')" > /opt/u2pl/requirements.txt \
    && pip install --no-cache-dir --constraint /opt/u2pl/constraints.txt --requirement /opt/u2pl/requirements.txt
COPY --from=wheel /wheel /opt/u2pl/wheel
RUN pip install --no-cache-dir --no-deps /opt/u2pl/wheel/*.whl && pip check

# Whoever `docker run --user` names has a home and a name too: caches lie there, and libraries ask for both.
RUN useradd --create-home --uid 1000 u2pl && chmod 1777 /home/u2pl \
    && mkdir /work && chown u2pl /work
ENV HOME=/home/u2pl USER=u2pl LOGNAME=u2pl
USER u2pl
WORKDIR /work
ENTRYPOINT ["tini", "--", "u2pl"]
CMD ["--help"]
