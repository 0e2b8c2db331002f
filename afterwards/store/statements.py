"""The statements, as text for `afterwards.store.sql`: what they do is said by the store's verbs."""

# In index conditions and in these statements the same words: a planner uses a partial index only
# where it can see that the condition is the index's.

ENQUEUE = """
INSERT INTO {tasks} (
    id, name, arguments, in_thread, carrier, max_attempts, worker, follows, state, attempt, crashes,
    created_at, run_at, publish_at, started_at, secrets
)
SELECT id, name, arguments, in_thread, carrier, max_attempts, worker, follows,
    CASE WHEN worker IS NULL THEN 'queued' ELSE 'running' END,
    CASE WHEN worker IS NULL THEN 0 ELSE 1 END,
    0,
    {now},
    {now} + delay_us,
    {now} + delay_us + publish_after_us,
    CASE WHEN worker IS NOT NULL THEN {now} END,
    secrets
FROM {given:NewRow}
"""

# What the `own` workers hold here was never started: the request that stored it was refused.
WITHDRAW = """
DELETE FROM {tasks} WHERE id IN ({each:ids})
    AND (state = 'queued' OR state = 'running' AND worker IN ({each:own}))
"""
STORED = "SELECT id FROM {tasks} WHERE id IN ({each:ids})"

# The state is concatenated, so that the rows are found by their ids: Postgres would go through
# whatever runs.
SETTLE = """
UPDATE {tasks} AS tasks SET
    state = given.state,
    run_at = CASE WHEN given.state = 'retrying' THEN {now} + given.delay_us ELSE tasks.run_at END,
    publish_at =
        CASE WHEN given.state = 'retrying' THEN {now} + given.delay_us ELSE tasks.publish_at END,
    finished_at = CASE WHEN given.state <> 'retrying' THEN {now} END,
    rescued_from = NULL,
    due_at = NULL,
    result = given.result,
    error_kind = given.error_kind,
    error_message = given.error_message
FROM {given:SettledRow}
WHERE tasks.id = given.id
    AND tasks.worker = given.worker AND tasks.attempt = given.attempt
    AND tasks.state || '' {may:settle}
"""

# The crash that it died of counts as no attempt.
POISON = """
UPDATE {tasks} AS tasks SET
    state = 'dead',
    crashes = given.crashes,
    attempt = tasks.attempt - 1,
    finished_at = {now},
    error_kind = given.error_kind,
    error_message = given.error_message
FROM {given:PoisonRow}
WHERE tasks.id = given.id
    AND tasks.worker = given.worker AND tasks.attempt = given.attempt
    AND tasks.state || '' {may:settle}
"""

# With a subquery Postgres goes by the ids alone.
ROWS = "SELECT * FROM {tasks} WHERE id IN ({each:ids})"
ENDED = "SELECT id FROM {tasks} WHERE id IN ({each:ids}) AND finished_at IS NOT NULL"

# --- claim ---

# Waits, in words that only one index has: a planner whose statistics are of a moment when nothing
# waited takes all indexes of what waits for empty, so that any would do, and sorts a whole backlog
# for one row.
IS_NEXT = "coalesce(follows, state) {may:claim}"

# One queue for each name, and for each number of crashes. From the head of one it is one look to
# the head of the next, however long the queues are. They are two looks, because SQLite would use
# one column of the index for a row's order.
HEADS = f"""
WITH RECURSIVE heads AS (
    SELECT (
        SELECT id FROM {{tasks}} WHERE {IS_NEXT} AND in_thread = :lane
        ORDER BY in_thread, crashes, name, run_at LIMIT 1
    ) AS id
    UNION ALL
    SELECT coalesce((
        SELECT id FROM {{tasks}} WHERE {IS_NEXT} AND in_thread = :lane
            AND crashes = head.crashes AND name > head.name
        ORDER BY in_thread, crashes, name, run_at LIMIT 1
    ), (
        SELECT id FROM {{tasks}} WHERE {IS_NEXT} AND in_thread = :lane AND crashes > head.crashes
        ORDER BY in_thread, crashes, name, run_at LIMIT 1
    ))
    FROM heads, {{tasks}} AS head WHERE head.id = heads.id
)
"""

QUEUES = f"""{HEADS}
SELECT in_thread, crashes, name FROM heads, {{tasks}} AS head
WHERE head.id = heads.id AND run_at <= {{now}} ORDER BY run_at
"""

CLAIMED = """
    state = 'running', worker = :claimer, attempt = attempt + 1, started_at = {now},
    finished_at = NULL
"""
# Whoever settles it claims at once what follows.
IS_FOLLOWED = """
    EXISTS (SELECT 1 FROM {tasks} AS follower WHERE follower.follows = {tasks}.id) AS is_followed
"""
CLAIM = f"""
WITH due AS (
    SELECT id FROM {{tasks}}
    WHERE {IS_NEXT} AND in_thread = :lane AND crashes = :crashed AND name = :named
        AND run_at <= {{now}}
    ORDER BY run_at LIMIT :most {{skip_locked}}
)
UPDATE {{tasks}} SET {CLAIMED} WHERE id IN (SELECT id FROM due) RETURNING *, {IS_FOLLOWED}
"""

# Concatenated, so that Postgres finds the rows by their ids: its statistics may be of a moment when
# nothing waited. Then it would take the partial index of what waits to be all but empty, and read a
# whole backlog for one row.
CLAIM_GIVEN = f"""
UPDATE {{tasks}} SET {CLAIMED.replace(":claimer", "given.worker")}
FROM {{given:WantedRow}}
WHERE {{tasks}}.id = given.id
    AND state || '' {{may:claim}} AND follows IS NULL AND run_at <= {{now}}
RETURNING {{own_columns}}, {IS_FOLLOWED}
"""

# Both queue by queue, because the index is: so the first is a few looks at a million rows, and the
# second sees none that is for later.
WAITED = f"""{HEADS}
SELECT coalesce({{now}} - min(run_at), 0) FROM heads, {{tasks}} AS head WHERE head.id = heads.id
"""
COUNT_DUE = f"""{HEADS}
SELECT count(*) FROM (
    SELECT tasks.id FROM heads, {{tasks}} AS head, {{tasks}} AS tasks
    WHERE head.id = heads.id AND {IS_NEXT.replace("follows, state", "tasks.follows, tasks.state")}
        AND tasks.in_thread = head.in_thread AND tasks.crashes = head.crashes
        AND tasks.name = head.name AND tasks.run_at <= {{now}}
    LIMIT :most
) AS due
"""

# What follows another is due when that has ended, or is not there any more.
FOLLOW = """
UPDATE {tasks} SET
    follows = NULL,
    run_at = CASE WHEN run_at > {now} THEN run_at ELSE {now} END,
    publish_at = CASE WHEN run_at > {now} THEN run_at ELSE {now} END
WHERE follows IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM {tasks} AS before
    WHERE before.id = {tasks}.follows AND before.state {may:cancel}
)
"""

# --- publish ---

# The older a backlog is, the rarer its repeats: they come after 30 s, then as the age trebles.
PUBLISH = """
WITH due AS (
    SELECT id FROM {tasks}
    WHERE state {may:claim} AND follows IS NULL AND publish_at <= {now}
    ORDER BY publish_at LIMIT :most {skip_locked}
)
UPDATE {tasks} SET publish_at = {now} +
    CASE WHEN 2 * ({now} - run_at) > :patience_us THEN 2 * ({now} - run_at) ELSE :patience_us END
WHERE id IN (SELECT id FROM due) RETURNING id, name, carrier
"""

# After the broker has lost its queue: what was published, and is to be so again in the distant
# future only.
PUBLISH_SOON = """
UPDATE {tasks} SET publish_at = {now}
WHERE state {may:claim} AND follows IS NULL
    AND run_at <= {now} AND publish_at > {now} + :patience_us
"""
NOT_PUBLISHED = """
UPDATE {tasks} SET publish_at = {now}
WHERE id IN ({each:ids}) AND state {may:claim} AND follows IS NULL
"""

# --- workers ---

REGISTER = "INSERT INTO {workers} (id, beats) VALUES (:worker, 0)"
BEAT = "UPDATE {workers} SET beats = beats + 1 WHERE id = :worker"
BEATS = "SELECT id, beats FROM {workers}"
FORGET = "DELETE FROM {workers} WHERE id IN ({each:ids})"

RELEASED = """
    state = 'queued', attempt = attempt - 1, worker = NULL, run_at = {now}, publish_at = {now}
"""
HELD = "state {may:release} AND worker = :holder"

# A crash is counted apart from a failure; whose fault it was is seen when the task runs alone.
RESCUE = f"""
UPDATE {{tasks}} SET crashes = crashes + 1,
    rescued_from = worker, due_at = coalesce(due_at, run_at), {RELEASED}
WHERE state {{may:release}} AND worker NOT IN (SELECT id FROM {{workers}})
RETURNING *
"""
RELEASE = f"UPDATE {{tasks}} SET {RELEASED} WHERE {HELD}"
GIVE_BACK = f"{RELEASE} AND id IN ({{each:ids}})"
HELD_BY = f"SELECT id FROM {{tasks}} WHERE {HELD}"

NOW = "SELECT {now}"

# The latest moment that a row knows says how far the clock was set back since, if it was. Those too
# that follow another.
AHEAD = "(CASE WHEN started_at > created_at THEN started_at ELSE created_at END - {now})"
PULL_BACK = f"""
UPDATE {{tasks}} SET
    run_at = run_at - {AHEAD}, publish_at = run_at - {AHEAD},
    created_at = created_at - {AHEAD}, started_at = started_at - {AHEAD}
WHERE state {{may:claim}} AND {AHEAD} > 60000000
"""

CANCELLED_UNDER = """
SELECT id FROM {tasks}
WHERE state {may:prune} AND finished_at > {now} - 60000000
    AND state = 'cancelled' AND worker = :worker
"""
SETTLED_LATELY = """
SELECT count(*) FROM {tasks}
WHERE state {may:prune} AND finished_at > {now} - :lately_us
"""
COUNT_DEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM {tasks} WHERE state = 'dead' AND finished_at > 0 LIMIT :most
) AS dead
"""
COUNT_RUNNING = "SELECT count(*) FROM {tasks} WHERE state {may:release}"

# --- what is old ---


def _prune(table: str, key: str, moment: str, condition: str = "") -> str:
    # Beginning where the last step ended: Postgres would go through all that was deleted before and
    # not yet vacuumed. The bound is a subquery because a clock that goes on while it is read cannot
    # bound an index scan.
    return f"""
DELETE FROM {table} WHERE {key} IN (
    SELECT {key} FROM {table}
    WHERE {condition} {moment} BETWEEN :since AND (SELECT {{now}} - :age_us)
    ORDER BY {moment} LIMIT :most {{skip_locked}}
) RETURNING {moment}
"""


PRUNE_TASKS = _prune("{tasks}", "id", "finished_at", "state {may:prune} AND")
PRUNE_DEAD = _prune("{tasks}", "id", "finished_at", "state {may:prune_dead} AND")
PRUNE_ANSWERS = _prune("{answers}", "key", "created_at")
PRUNE_CHANGES = _prune("{changes}", "id", "at")
