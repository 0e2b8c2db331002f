"""The rows of the other queues: each as its own documentation has it run in production."""

from benchmarks.rows import PER_COMMIT, Row
from benchmarks.servers import POSTGRES, RABBITMQ, REDIS_ALWAYS, REDIS_EVERY_SECOND
from tests import serving

OTHERS = "benchmarks.others"
# An environment of its own: it takes an older client of Redis than all the others.
ARQ = serving.ROOT / ".venv-bench-arq" / "bin"

ALWAYS, EVERY_SECOND = "appendfsync always", "appendfsync everysec"
CONFIRMS = "before each confirm"

TASKFLOW = Row(
    "fastapi-taskflow over SQLite", f"{OTHERS}.taskflow_app:app", "none, memory; when it has run"
)
# Of four threads and one, the default, it ran more with four in both of two trials.
HUEY = Row(
    "Huey over SQLite",
    f"{OTHERS}.huey_app:app",
    PER_COMMIT,
    worker=("huey_consumer", f"{OTHERS}.huey_app.queue", "--quiet", "--workers", "4"),
)
DBOS = Row("DBOS over SQLite", f"{OTHERS}.dbos_app:app", PER_COMMIT)
# In a trial a queue took half as much again as workflows started at once; on SQLite it did not.
DBOS_ON_POSTGRES = DBOS._replace(
    name="DBOS over Postgres, a queue",
    app=f"{OTHERS}.dbos_app:queued_app",
    needs=(POSTGRES,),
)
# Ten at a time, as SAQ and arq have it unasked; with one, its default, it ran less in two trials.
PROCRASTINATE = Row(
    "Procrastinate over Postgres",
    f"{OTHERS}.procrastinate_app:app",
    PER_COMMIT,
    needs=(POSTGRES,),
    worker=(
        *("procrastinate", "--app", f"{OTHERS}.procrastinate_app.queue"),
        *("worker", "--concurrency", "10"),
    ),
)
SAQ = Row(
    "SAQ over Redis",
    f"{OTHERS}.saq_app:app",
    ALWAYS,
    needs=(REDIS_ALWAYS,),
    worker=("saq", f"{OTHERS}.saq_app.worker"),
)
SAQ_EVERY_SECOND = SAQ._replace(fsync=EVERY_SECOND, needs=(REDIS_EVERY_SECOND,))
ARQ_QUIET = ("--custom-log-dict", f"{OTHERS}.arq_app.QUIET")
ARQ_OVER_REDIS = Row(
    "arq over Redis",
    f"{OTHERS}.arq_app:app",
    ALWAYS,
    command=(f"{ARQ}/uvicorn",),
    needs=(REDIS_ALWAYS,),
    worker=(f"{ARQ}/arq", f"{OTHERS}.arq_app.Worker", *ARQ_QUIET),
)
TASKIQ = Row(
    "taskiq over a stream of Redis",
    f"{OTHERS}.taskiq_app:app",
    ALWAYS,
    needs=(REDIS_ALWAYS,),
    worker=("taskiq", "worker", f"{OTHERS}.taskiq_app:broker", "--log-level", "WARNING"),
)
TASKIQ_OVER_RABBITMQ = TASKIQ._replace(
    name="taskiq over RabbitMQ", fsync=CONFIRMS, needs=(RABBITMQ,)
)
DRAMATIQ = Row(
    "Dramatiq over Redis",
    f"{OTHERS}.dramatiq_app:app",
    ALWAYS,
    needs=(REDIS_ALWAYS,),
    worker=("dramatiq", f"{OTHERS}.dramatiq_app:broker"),
)
DRAMATIQ_OVER_RABBITMQ = DRAMATIQ._replace(
    name="Dramatiq over RabbitMQ, confirm_delivery", fsync=CONFIRMS, needs=(RABBITMQ,)
)
CELERY_WORKER = ("celery", "--app", f"{OTHERS}.celery_app:queue", "worker")
CELERY_OVER_REDIS = Row(
    "Celery over Redis",
    f"{OTHERS}.celery_app:app",
    ALWAYS,
    needs=(REDIS_ALWAYS,),
    worker=CELERY_WORKER,
)
CELERY_OVER_RABBITMQ = CELERY_OVER_REDIS._replace(
    name="Celery over RabbitMQ", fsync="not waited for", needs=(RABBITMQ,)
)
CELERY_CONFIRMED = CELERY_OVER_RABBITMQ._replace(
    name="Celery over RabbitMQ, publisher confirms",
    app=f"{OTHERS}.celery_app:confirmed_app",
    fsync=CONFIRMS,
)

CELERY = (CELERY_OVER_REDIS, CELERY_OVER_RABBITMQ, CELERY_CONFIRMED)
# What has a task somewhere else than in its own memory when it answers.
QUEUES = (
    HUEY,
    DBOS,
    DBOS_ON_POSTGRES,
    PROCRASTINATE,
    SAQ,
    SAQ_EVERY_SECOND,
    ARQ_OVER_REDIS,
    TASKIQ,
    TASKIQ_OVER_RABBITMQ,
    DRAMATIQ,
    DRAMATIQ_OVER_RABBITMQ,
    *CELERY,
)
