"""Structured logs: one JSON object a line, with whatever the context binds (a request id, a target)."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure(level: str) -> None:
    """Makes structlog and the standard library's loggers write JSON lines to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    render = structlog.processors.JSONRenderer(ensure_ascii=False)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("botocore", "boto3", "urllib3", "docker", "pynamodb"):
        # At debug level these write whole requests, and a request may hold a secret.
        logging.getLogger(chatty).setLevel(logging.WARNING)
