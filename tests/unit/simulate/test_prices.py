"""What things cost at list prices. A test that fails here says that something became dearer."""

import pytest

from deploy.project import ROOT
from simulate import months
from simulate.__main__ import simulate_start
from simulate.prices import price, price_by_service
from simulate.stack import Setup
from simulate.steps import Fanout
from simulate.usage import WRITE_UNITS, add, times

MILLION = 1_000_000


def price_of_a_million(fanout: Fanout) -> float:
    _, usage = simulate_start(Setup(), fanout, fanout.nodes)
    return price(usage) / fanout.targets * MILLION


@pytest.mark.parametrize(
    ("fanout", "dollars"),
    [
        (Fanout(1000, 100, output_bytes=200), 3.00),
        (Fanout(1000, 100, output_bytes=20 * 1024), 13.00),
        # With one target a node, three SQS requests and one count are for one target.
        (Fanout(1000, 1000, output_bytes=200), 4.50),
        (Fanout(1000, 1000, output_bytes=20 * 1024), 14.50),
    ],
)
def test_price_of_a_million_targets(fanout: Fanout, dollars: float) -> None:
    cost = price_of_a_million(fanout)
    assert dollars * 0.5 < cost <= dollars


def test_price_of_an_idle_node_in_a_month() -> None:
    assert 0.06 < price(months.idle_node()) <= 0.08


def test_price_of_an_hour_of_a_command_that_prints_a_little() -> None:
    usage = months.printing_hour()
    assert price(usage) < 0.0005
    assert usage["PutItem"] + usage["UpdateItem"] == pytest.approx(80)


def test_what_has_no_price_is_an_error() -> None:
    with pytest.raises(KeyError):
        price({"DescribeTable": 1})


def test_the_services_prices_are_the_price() -> None:
    usage = add({WRITE_UNITS: 3, "PutObject": 1}, times(2, {"ReceiveMessage": 5, WRITE_UNITS: 1}))
    parts = price_by_service(usage)
    assert parts["SQS"] == pytest.approx(10 * 0.4e-6)
    assert parts["DynamoDB"] == pytest.approx(5 * 0.625e-6)
    assert price(usage) == pytest.approx(sum(parts.values()))


def test_the_stack_has_as_many_alarms_as_the_template() -> None:
    template = (ROOT / ".chalice/functions.yaml").read_text(encoding="utf-8")
    assert months.stack()["AlarmMonths"] == template.count("Type: AWS::CloudWatch::Alarm")
