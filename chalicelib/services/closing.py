"""Closes the executions that workers say may be over, many at a time."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from chalicelib import store
from chalicelib.clients import queues
from chalicelib.domain.ends import Counted, unite
from chalicelib.store.executions import Key
from chalicelib.store.models import Execution

log = structlog.stdlib.get_logger(__name__)

_AT_ONCE = 16


def close_ended(bodies: Mapping[str, str]) -> list[str]:
    """Closes what is over of the executions in these messages, by their ids.

    Returns the ids of those messages that have to come again. A message of an execution that is not over
    need not: whoever counts its last targets sends another one.
    """
    store.connect()
    named = {message_id: queues.decode_ended(body) for message_id, body in bodies.items()}
    keys = {(ended.job_id, ended.executor_id) for ended in named.values() if ended}
    over = _find_over(keys)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        closed = dict(zip(over, pool.map(_try_to_close, over.items()), strict=True))
    return [
        message_id
        for message_id, ended in named.items()
        if ended and not closed.get((ended.job_id, ended.executor_id), True)
    ]


def _find_over(keys: set[Key]) -> dict[Key, Counted]:
    """Those of the executions whose targets are all counted, and that are not closed yet."""
    executions = store.executions.get_open(keys)
    parts = {key: _parts(key, execution) for key, execution in executions.items()}
    counts = store.counts.get_parts(part for of_one in parts.values() for part in of_one)
    counted = {
        key: unite(counts[part] for part in of_one if part in counts)
        for key, of_one in parts.items()
    }
    return {key: all_ for key, all_ in counted.items() if len(all_) == executions[key].Total}


def _parts(key: Key, execution: Execution) -> list[store.counts.PartKey]:
    return [(*key, part) for part in range(int(execution.Parts))]


def _try_to_close(over: tuple[Key, Counted]) -> bool:
    """Returns False if that failed, and has to be tried again."""
    (job_id, executor_id), counted = over
    try:
        store.executions.close_execution(job_id, executor_id, counted)
    except Exception:  # one that fails must not keep the others open
        log.exception("execution not closed", job_id=job_id, executor_id=executor_id)
        return False
    return True
