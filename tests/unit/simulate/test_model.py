"""The simulated executions: what they ask of AWS, and that each of their targets ends."""

from dataclasses import replace

import pytest

from simulate.costs import Costs
from simulate.limits import Limits
from simulate.model import Model
from simulate.ramp import busiest_at, find_limits
from simulate.stack import FUNCTIONS, GATEWAY, KEY_WRITES, TABLE_WRITES, Setup
from simulate.steps import Fanout
from simulate.usage import FUNCTION_RUNS

SETUP = Setup()
# No command runs so long that its worker notes that it runs.
FAST = Setup(costs=Costs(worker_cpu=0.001, engine_cpu=0.001))


def run(fanout: Fanout, setup: Setup = SETUP, starts: int = 1) -> Model:
    model = Model(setup, fanout, fanout.nodes)
    for _ in range(starts):
        model.start()
    model.loop.run()
    return model


def test_requests_of_a_start_on_three_nodes() -> None:
    usage = run(Fanout(30, 3), FAST).stack.usage
    # One part, which is in the execution: each node reads one item.
    assert usage["GetItem"] == 1 + 3
    assert usage["SendMessageBatch"] == 3
    assert usage["ReceiveMessage"] == 3 + 1
    assert usage["PutItem"] == 2 * 30
    assert usage["UpdateItem"] == 3 + 1
    assert usage["SendMessage"] == 1
    assert usage[FUNCTION_RUNS] == 2


@pytest.mark.parametrize(
    "fanout", [Fanout(1, 1), Fanout(33, 5), Fanout(1000, 100), Fanout(1000, 7)]
)
def test_every_target_ends_and_the_execution_closes(fanout: Fanout) -> None:
    model = run(fanout, starts=3)
    assert 2 <= model.stack.usage["PutItem"] / (3 * fanout.targets) <= 3
    for execution in model.executions:
        assert not any(execution.left.values())
        assert execution.accepted <= execution.last_over < execution.closed


def test_a_command_that_runs_on_costs_one_more_write() -> None:
    usage = run(Fanout(30, 3), replace(FAST, command_seconds=1)).stack.usage
    assert usage["PutItem"] == 3 * 30


def test_an_execution_closes_within_ten_seconds_of_its_last_end() -> None:
    (execution,) = run(Fanout(1000, 1000)).executions
    assert execution.closed - execution.last_over < 10


def test_what_the_gateway_refuses_asks_nothing_of_the_others() -> None:
    model = run(Fanout(1, 1), replace(SETUP, limits=Limits(gateway_burst=2)), starts=5)
    assert len(model.executions) == 2
    assert model.stack.usage["TransactWriteItems"] == 2


def test_more_memory_answers_a_wide_start_sooner() -> None:
    slow, fast = (
        run(Fanout(1000, 1000), replace(SETUP, api_megabytes=megabytes)).executions[0].answered
        for megabytes in (512, 1769)
    )
    assert fast < slow / 2


def test_a_small_node_is_slower() -> None:
    slow = run(Fanout(100, 1), replace(SETUP, costs=Costs(node_cores=1))).executions[0]
    fast = run(Fanout(100, 1)).executions[0]
    assert slow.last_over > 1.5 * fast.last_over


def test_a_share_of_a_resource_grows_with_the_rate() -> None:
    name, share = busiest_at(10, SETUP, Fanout(1, 1), nodes=100, jobs=100)
    assert (name, share) == (GATEWAY, pytest.approx(0.2))


def test_small_starts_are_limited_by_the_gateway_and_then_by_a_key() -> None:
    limits = list(find_limits(SETUP, Fanout(1, 1), nodes=1000, jobs=1))
    assert limits[0].name == GATEWAY
    assert limits[0].rate == pytest.approx(50)
    # One job's item is written by each of its starts, and no quota raises that.
    assert limits[-1].name == KEY_WRITES + "jobs"
    assert limits[-1].rate >= 100
    assert limits[-1].remedy == "nothing"


def test_wide_starts_are_limited_by_a_new_table() -> None:
    first = next(find_limits(SETUP, Fanout(1000, 100), nodes=1000, jobs=100))
    assert first.name == TABLE_WRITES + "results"
    # Two or three write units a target, of 4,000 a second.
    assert 1.3 < first.rate < 2.1


def test_a_new_account_is_limited_by_its_functions() -> None:
    small = replace(SETUP, limits=Limits(concurrency=10, table_writes=40_000, table_reads=40_000))
    first = next(find_limits(small, Fanout(1000, 1000), nodes=1000, jobs=100))
    assert first.name == FUNCTIONS
    assert first.rate < 3
