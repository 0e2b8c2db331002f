# The version of .python-version, to the patch, so that two builds are the same.
FROM python:3.11.15-slim-bookworm

# tini is process 1: uvicorn ends by raising the signal that stopped it, which the kernel ignores from process 1, and
# then the interpreter would wait for every thread that still runs.
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app

# Before the code, so that a change of code does not install them again. No compiler is needed: the agent is pure
# Python although it is built from its sdist, and everything else comes as a wheel.
COPY requirements.lock requirements.txt requirements-celery.txt requirements-sqs.txt ./
# For a fleet: docker build --build-arg REQUIREMENTS=requirements-celery.txt
ARG REQUIREMENTS=requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check -r $REQUIREMENTS -c requirements.lock

COPY . .

# The number is fixed so that a volume keeps its owner from image to image; data/ holds SQLite's file and the images.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin service \
 && install -d -o service -g service data
USER service

# Log lines leave at once, and nothing is compiled into directories that this user cannot write.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Obeyed by the server and by the health check; a platform sets its own.
ENV PORT=8000
EXPOSE 8000

# What uvicorn and the drain listen to. Whoever stops the container must wait 30 s before SIGKILL (docker stop -t 30):
# 5 for requests, 20 for tasks (DRAIN_SECONDS), 3 for traces.
STOPSIGNAL SIGTERM

# Up to 4 s: /health itself gives the database 2. Python, because the image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]

ENTRYPOINT ["tini", "--"]
# The Procfile's command; its numbers have their reasons in render.yaml. `exec`, so that SIGTERM arrives at uvicorn.
CMD ["sh", "-c", "exec uvicorn asgi_app:app --host 0.0.0.0 --port $PORT --timeout-graceful-shutdown 5 --timeout-keep-alive 95 --reset-contextvars"]
