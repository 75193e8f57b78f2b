"""Builds the Chalice app from its blueprints. There is no logic here."""

from typing import Any

from chalice import AuthResponse, Chalice, Rate
from chalice.app import AuthRequest, SQSEvent

from chalicelib import telemetry
from chalicelib.config import settings
from chalicelib.routes import access, audit, executions, http, jobs, openapi
from chalicelib.services import closing, upkeep

telemetry.configure(settings.log_level)

app = Chalice(app_name="appjobs", configure_logs=False)
app.register_middleware(http.add_context, "http")
app.register_middleware(http.allow_origins, "http")
app.register_blueprint(jobs.routes)
app.register_blueprint(executions.routes)
app.register_blueprint(openapi.routes)
app.register_blueprint(audit.routes)


@app.authorizer(ttl_seconds=access.CACHE_SECONDS)
def authorizer(request: AuthRequest) -> AuthResponse:
    """Says who calls."""
    return access.authorize(request)


http.prepare_app(app)
# Browsers send preflights without a token, so these come after the guard.
access.guard(app, authorizer)
http.add_preflights(app)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="upkeep")
def look_after_executions(event: Any) -> None:
    """Each minute, looks after the open executions."""
    upkeep.take_turn()


# The deployed stack puts its own queue in its place.
@app.on_sqs_message(
    queue_arn="arn:aws:sqs:us-east-1:000000000000:dead-letters", name="dead_letters"
)
def end_dead_letters(event: SQSEvent) -> None:
    """Ends the targets of messages that failed too often."""
    for record in event:
        upkeep.end_dead_letter(record.body)


# The same. Up to a hundred executions are closed at once: those that workers named within two seconds.
@app.on_sqs_message(
    queue_arn="arn:aws:sqs:us-east-1:000000000000:ended",
    batch_size=100,
    maximum_batching_window_in_seconds=2,
    name="closing",
)
def close_executions(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Closes the executions that are over. Returns which messages have to come again."""
    bodies = {record["messageId"]: record["body"] for record in event.to_dict()["Records"]}
    failed = closing.close_ended(bodies)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
