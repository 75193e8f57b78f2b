"""What the worker counts, for Prometheus. Names and labels are explained in docs/operations.md."""

from prometheus_client import Counter, Gauge

IN_FLIGHT = Gauge("appjobs_in_flight", "Targets that this worker runs", ["node"])
WAITING = Gauge("appjobs_waiting", "About how many messages wait on the node's queue", ["node"])
AHEAD = Gauge("appjobs_received_ahead", "Messages in hand that wait for their turn", ["node"])
LAST_POLL = Gauge("appjobs_last_poll_age_seconds", "Time since a poll last succeeded", ["node"])
FINISHED = Counter("appjobs_finished", "Targets that this worker ended", ["outcome"])
ADOPTED = Counter("appjobs_adopted", "Targets taken over from a worker that did not end them")
EXIT_CODES = Gauge("appjobs_exit_codes_kept", "Exit codes from the engine's events", ["engine"])
OUTPUT = Counter("appjobs_output_bytes", "Output that the engines handed over")
RETRIES = Counter("appjobs_retries", "Steps that failed and are tried again", ["step"])
