"""What the simulation found, as text."""

import math
from collections.abc import Iterable, Iterator, Sequence

from simulate import months
from simulate.model import Execution
from simulate.prices import DATE, REGION, price, price_by_service
from simulate.ramp import Reached
from simulate.usage import Usage, times

_STARTS_OF_A_DAY = (10, 100, 1000)


def table(rows: Iterable[Sequence[str]]) -> str:
    """The rows, their columns one below the other; the last one is not padded."""
    lines = [list(row) for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  "
        + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def show_times(execution: Execution) -> Iterator[tuple[str, str]]:
    """When what happened after the request of a start."""
    yield "accepted: stored, and kept whatever happens", _seconds(execution.accepted)
    yield "answered: all messages are sent", _seconds(execution.answered)
    yield "the first target is over", _seconds(execution.first_over)
    yield "the last target is over", _seconds(execution.last_over)
    yield "closed: the history has its counts", _seconds(execution.closed)


def show_limits(limits: Iterable[Reached]) -> Iterator[tuple[str, str, str]]:
    """Each limit with its rate."""
    yield "starts a second", "what is full then", "what raises it"
    for limit in limits:
        yield f"{float(f'{limit.rate:.2g}'):g}", limit.name, limit.remedy


def show_prices(usage: Usage, targets: int) -> Iterator[tuple[str, str, str]]:
    """What one start costs, and a million targets of such starts, by service."""
    by_service = {name: dollars for name, dollars in price_by_service(usage).items() if dollars}
    yield "", "one start", "a million targets"
    for name, dollars in [*by_service.items(), ("all", price(usage))]:
        yield name, f"${dollars:.6f}", f"${dollars / targets * 1e6:.2f}"


def show_months(
    usage: Usage, targets: int, nodes: int, output_bytes: int
) -> Iterator[tuple[str, str]]:
    """What a month costs: what is always there, and loads on top."""
    idle = price(months.idle_node())
    yield "the stack (upkeep, the functions' queues, key, alarms)", f"${price(months.stack()):,.2f}"
    yield f"{nodes:,} idle nodes, ${idle:.3f} each", f"${nodes * idle:,.2f}"
    hour = price(months.printing_hour())
    yield "a command that prints a little all the time, per hour", f"${hour:.5f}"
    for starts in _STARTS_OF_A_DAY:
        month = 30 * starts
        started = price(times(month, usage))
        stored = price(months.kept(month * targets, output_bytes))
        yield (
            f"{starts:,} such starts a day, on top; and to keep their results for 30 days",
            f"${started:,.2f} + ${stored:,.2f}",
        )


def title(nodes: int, targets: int, used: int) -> str:
    """What was simulated."""
    return (
        f"{nodes:,} nodes; starts of {targets:,} targets on {used:,} of them\n"
        f"List prices of {REGION}, {DATE}. AWS's latencies are assumed, our own costs were measured."
    )


def _seconds(value: float) -> str:
    return "never" if math.isnan(value) else f"{value:.2f} s"
