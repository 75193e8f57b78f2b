"""Simulates appjobs with many nodes: `make simulate NODES=10000 TARGETS=1000`.

Run it as `python -m simulate --nodes 10000 --targets 1000`; `--help` lists the rest.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace

from simulate import report
from simulate.limits import Limits
from simulate.model import Execution, Model
from simulate.ramp import find_limits
from simulate.stack import Setup
from simulate.steps import Fanout
from simulate.usage import Usage


def main() -> None:
    """Prints times, limits and prices."""
    options = _parser().parse_args()
    nodes, targets = options.nodes, options.targets
    fanout = Fanout(targets, min(nodes, targets), options.output_bytes, options.secrets)
    limits = replace(Limits(), concurrency=options.concurrency, gateway_rate=options.throttle)
    setup = Setup(limits, command_seconds=options.command_seconds, api_megabytes=options.memory)
    execution, usage = simulate_start(setup, fanout, nodes)
    print(report.title(nodes, targets, fanout.nodes))
    _print("One start, while nothing else happens", report.show_times(execution))
    _print("What it costs", report.show_prices(usage, targets))
    _print("A month costs", report.show_months(usage, targets, nodes, options.output_bytes))
    found = find_limits(setup, fanout, nodes, options.jobs)
    _print("Limits, each with those before it raised tenfold", report.show_limits(found))


def simulate_start(setup: Setup, fanout: Fanout, nodes: int) -> tuple[Execution, Usage]:
    """One start while nothing else happens: when what happened, and what was asked of AWS."""
    model = Model(setup, fanout, nodes)
    model.start()
    model.loop.run()
    return model.executions[0], model.stack.usage


def _print(heading: str, rows: Iterable[Sequence[str]]) -> None:
    print(f"\n{heading}\n{report.table(rows)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulate", description=__doc__)
    for name, kind, default, text in (
        ("nodes", int, 10_000, "nodes that workers serve"),
        ("targets", int, 1_000, "targets of each start, spread evenly over the nodes"),
        ("jobs", int, 100, "jobs that are started in turn"),
        ("output-bytes", int, 200, "what each command prints"),
        ("secrets", int, 0, "secret arguments of each job"),
        ("command-seconds", float, 0.0, "how long each command runs"),
        ("memory", int, 512, "the API's memory in MB, which decides its share of a core"),
        ("concurrency", int, 1000, "the account's quota of functions at once; a new one has 10"),
        ("throttle", float, 50.0, "ThrottleRate: requests a second that the gateway takes"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default})")
    return parser


if __name__ == "__main__":
    main()
