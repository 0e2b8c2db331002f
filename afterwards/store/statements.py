"""The store's longer statements, made once: what they do is said by the verbs of `afterwards.store.tasks`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Executable,
    ScalarSelect,
    TextClause,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from afterwards.model import WAITING, State
from afterwards.store.many_rows import given, number_of_given, of_given
from afterwards.store.tables import (
    IS_FOLLOWING,
    IS_NEXT,
    IS_PRUNED,
    IS_RUNNING,
    IS_WAITING,
    MICROSECONDS,
    answers,
    clock,
    tasks,
    workers,
)

_is_claimed = of_given("worker").is_not(None)
_due = clock() + number_of_given("delay_us")
_NEW = {
    "id": of_given("id"),
    "name": of_given("name"),
    "arguments": of_given("arguments"),
    "in_thread": of_given("in_thread", Boolean()),
    "carrier": of_given("carrier"),
    "max_attempts": number_of_given("max_attempts"),
    "worker": of_given("worker"),
    "follows": of_given("follows"),
    "state": case((_is_claimed, State.RUNNING), else_=State.QUEUED),
    "attempt": case((_is_claimed, 1), else_=0),
    "crashes": literal(0),
    "created_at": clock(),
    "run_at": _due,
    "hand_off_at": _due + number_of_given("hand_off_after_us"),
    "started_at": case((_is_claimed, clock())),
}
ENQUEUE = tasks.insert().from_select([*_NEW], select(*_NEW.values()))

# What the `own` workers hold here was never started: the request that stored it was refused.
GIVEN = tasks.c.id.in_(select(of_given("id")))
WITHDRAW = delete(tasks).where(
    GIVEN,
    or_(
        tasks.c.state == State.QUEUED,
        IS_RUNNING & tasks.c.worker.in_(bindparam("own", expanding=True)),
    ),
)

_is_final = of_given("state") != State.RETRYING
SETTLE = (
    update(tasks)
    .where(
        tasks.c.id == of_given("id"),
        tasks.c.worker == of_given("worker"),
        tasks.c.attempt == number_of_given("attempt"),
        IS_RUNNING,
    )
    .values(
        state=of_given("state"),
        run_at=case((_is_final, tasks.c.run_at), else_=_due),
        hand_off_at=case((_is_final, tasks.c.hand_off_at), else_=_due),
        finished_at=case((_is_final, clock())),
        result=of_given("result"),
        error_kind=of_given("error_kind"),
        error_message=of_given("error_message"),
    )
)

# With a subquery Postgres goes by the ids alone.
_given_ids = tasks.c.id.in_(select(of_given("id")).select_from(given))
ROWS = select(tasks).where(_given_ids)
ENDED = select(tasks.c.id).where(_given_ids, tasks.c.finished_at.is_not(None))
_KEY = (tasks.c.in_thread, tasks.c.crashes, tasks.c.name)
_lane = bindparam("lane", type_=Boolean())


def _next(*conditions: ColumnElement[bool]) -> ScalarSelect[str]:
    chosen = select(tasks.c.id).where(IS_NEXT, *conditions).order_by(*_KEY, tasks.c.run_at).limit(1)
    return chosen.correlate(_head).scalar_subquery()


# One queue for each name, and for each number of crashes. From the head of one it is one look to
# the head of the next, however long the queues are. They are two steps, because SQLite would use
# one column of the index for a row's order.
_head = tasks.alias("head")
_heads = select(_next(tasks.c.in_thread == _lane).label("id")).cte("heads", recursive=True)
_heads = _heads.union_all(
    select(
        func.coalesce(
            _next(
                tasks.c.in_thread == _lane,
                tasks.c.crashes == _head.c.crashes,
                tasks.c.name > _head.c.name,
            ),
            _next(tasks.c.in_thread == _lane, tasks.c.crashes > _head.c.crashes),
        )
    ).where(_head.c.id == _heads.c.id)
)
QUEUES = (
    select(_head.c.in_thread, _head.c.crashes, _head.c.name)
    .where(_head.c.id == _heads.c.id, _head.c.run_at <= clock())
    .order_by(_head.c.run_at)
)

_DUE = (
    select(tasks.c.id)
    .where(
        IS_NEXT,
        tasks.c.in_thread == _lane,
        tasks.c.crashes == bindparam("crashed"),
        tasks.c.name == bindparam("named"),
        tasks.c.run_at <= clock(),
    )
    .order_by(tasks.c.run_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("due")
)

_CLAIMED = {
    "state": State.RUNNING,
    "worker": bindparam("claimer"),
    "attempt": tasks.c.attempt + 1,
    "started_at": clock(),
    "finished_at": None,
}
# Whoever settles it claims at once what follows. As text: for SQLite, SQLAlchemy takes the tables'
# names out of what is returned.
_IS_FOLLOWED = literal_column(
    "EXISTS (SELECT 1 FROM tasks AS follower WHERE follower.follows = tasks.id)", Boolean()
)
_ROW = (*tasks.c, _IS_FOLLOWED.label("is_followed"))
CLAIM = update(tasks).where(tasks.c.id.in_(select(_DUE.c.id))).values(_CLAIMED).returning(*_ROW)
# Concatenated, so that Postgres finds the row by its id: its statistics may be of a moment when
# nothing waited. Then it would take the partial index of what waits to be all but empty, and read a
# whole backlog for one row.
_state = tasks.c.state.concat("")
CLAIM_ONE = (
    update(tasks)
    .where(
        tasks.c.id == bindparam("wanted"),
        _state.in_(WAITING),
        tasks.c.follows.is_(None),
        tasks.c.run_at <= clock(),
    )
    .values(_CLAIMED)
    .returning(*_ROW)
)

_DUE_FOR_HAND_OFF = (
    select(tasks.c.id)
    .where(IS_WAITING, tasks.c.hand_off_at <= clock())
    .order_by(tasks.c.hand_off_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_patience = bindparam("patience_us", type_=BigInteger())
_twice_its_age = 2 * (clock() - tasks.c.run_at)
HAND_OFF = (
    update(tasks)
    .where(tasks.c.id.in_(select(_DUE_FOR_HAND_OFF.c.id)))
    # The older a backlog is, the rarer its repeats: they come after 30 s, then as the age trebles.
    .values(
        hand_off_at=clock() + case((_twice_its_age > _patience, _twice_its_age), else_=_patience)
    )
    .returning(tasks.c.id, tasks.c.name, tasks.c.carrier)
)

# After the broker has lost its queue: what was handed off, and is to be handed off again in the
# distant future only.
HAND_OFF_SOON = (
    update(tasks)
    .where(IS_WAITING, tasks.c.run_at <= clock(), tasks.c.hand_off_at > clock() + _patience)
    .values(hand_off_at=clock())
)

# Both queue by queue, because the index is: so the first is a few looks at a million rows, and the
# second sees none that is for later.
WAITED = select(func.coalesce(clock() - func.min(_head.c.run_at), 0)).where(
    _head.c.id == _heads.c.id
)
COUNT_DUE = select(func.count()).select_from(
    select(tasks.c.id)
    .where(
        _head.c.id == _heads.c.id,
        IS_NEXT,
        *(column == _head.c[column.name] for column in _KEY),
        tasks.c.run_at <= clock(),
    )
    .limit(bindparam("most"))
    .subquery()
)

_before = tasks.alias("before")
_not_before = case((tasks.c.run_at > clock(), tasks.c.run_at), else_=clock())
_is_open = _before.c.state.in_([*WAITING, State.RUNNING])
FOLLOW = (
    update(tasks)
    .where(
        IS_FOLLOWING, ~exists(select(_before.c.id).where(_before.c.id == tasks.c.follows, _is_open))
    )
    .values(follows=None, run_at=_not_before, hand_off_at=_not_before)
)

RESCUE = (
    update(tasks)
    .where(IS_RUNNING, tasks.c.worker.not_in(select(workers.c.id)))
    # A crash is counted apart from a failure; whose fault it was is seen when the task runs alone.
    .values(
        state=State.QUEUED,
        crashes=tasks.c.crashes + 1,
        attempt=tasks.c.attempt - 1,
        worker=None,
        run_at=clock(),
        hand_off_at=clock(),
    )
    .returning(*tasks.c)
)
HELD = (IS_RUNNING, tasks.c.worker == bindparam("holder"))

POISON = (
    update(tasks)
    .where(tasks.c.id == bindparam("poison"), *HELD, tasks.c.attempt == bindparam("number"))
    .values(
        state=State.DEAD,
        crashes=bindparam("crashed"),
        attempt=tasks.c.attempt - 1,
        finished_at=clock(),
        error_kind=bindparam("kind"),
        error_message=bindparam("message"),
    )
)

DUE_NOW = {"run_at": clock(), "hand_off_at": clock()}
RELEASED = {"state": State.QUEUED, "attempt": tasks.c.attempt - 1, "worker": None, **DUE_NOW}
RELEASE = update(tasks).where(*HELD).values(RELEASED)

_latest = case(
    (tasks.c.started_at > tasks.c.created_at, tasks.c.started_at), else_=tasks.c.created_at
)
_ahead = _latest - clock()  # how far the clock was set back since, if it was
PULL_BACK = (
    update(tasks)
    .where(tasks.c.state.in_(WAITING), _ahead > 60 * MICROSECONDS)  # those too that follow another
    .values(
        run_at=tasks.c.run_at - _ahead,
        hand_off_at=tasks.c.run_at - _ahead,
        created_at=tasks.c.created_at - _ahead,
        started_at=tasks.c.started_at - _ahead,
    )
)


def _prune(
    key: Column[str], moment: Column[int], *conditions: ColumnElement[bool] | TextClause
) -> Executable:
    # Beginning where the last step ended: Postgres would go through all that was deleted before and
    # not yet vacuumed. The bound is a subquery because a clock that goes on while it is read cannot
    # bound an index scan.
    bound = select(clock() - bindparam("age_us", type_=BigInteger())).scalar_subquery()
    is_old = moment.between(bindparam("since", type_=BigInteger()), bound)
    old = select(key).where(*conditions, is_old).order_by(moment).limit(bindparam("most"))
    return delete(key.table).where(key.in_(old.with_for_update(skip_locked=True))).returning(moment)


PRUNE_TASKS = _prune(tasks.c.id, tasks.c.finished_at, IS_PRUNED)
PRUNE_ANSWERS = _prune(answers.c.key, answers.c.created_at)
