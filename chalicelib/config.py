"""Settings that the API and the worker share: the only reader of the environment in chalicelib.

Botocore reads by itself where AWS is (region, credentials, `AWS_ENDPOINT_URL`); that is not listed here.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

# No log takes more output than this, whatever the worker's or the job's setting is: 64 GiB.
MAX_LOG_BYTES = 64 * 1024**3


@dataclass(frozen=True)
class Settings:
    """One deployment's names and limits."""

    # First part of the names of tables, queues and the key's alias; one per deployment in an account.
    prefix: str = "appjobs-dev"
    # Bucket of the logs. Bucket names are global, so it cannot follow from the prefix.
    log_bucket: str = "appjobs-dev-logs"
    # The queue for messages that failed too often on a node's queue. Empty: there is none.
    dead_letter_queue_arn: str = ""
    # The URL of the queue of executions that may be over. Empty: upkeep closes them, some minutes later.
    ended_queue_url: str = ""
    # How long executions, results and logs are kept, in days. The bucket's lifecycle has the same number.
    retention_days: int = 30
    # How long entries of the audit are kept, in days.
    audit_retention_days: int = 365
    # A target that no worker took up within this time never runs.
    delivery_deadline_seconds: int = 600
    # Whether jobs run only in containers of their own application, whoever starts them.
    own_containers_only: bool = False
    # Web pages of these origins may call the API; `*` for any.
    cors_origins: tuple[str, ...] = ()
    # debug, info, warning or error.
    log_level: str = "info"

    @property
    def kms_key(self) -> str:
        """The alias of the key that seals secrets."""
        return f"alias/{self.prefix}"

    @property
    def retention_seconds(self) -> int:
        """The retention period in seconds."""
        return self.retention_days * 86_400

    @property
    def audit_retention_seconds(self) -> int:
        """The audit's retention period in seconds."""
        return self.audit_retention_days * 86_400


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables.

    Raises ValueError, which names the variable, if one is wrong.
    """
    default = Settings()
    return Settings(
        prefix=environ.get("APPJOBS_PREFIX") or default.prefix,
        log_bucket=environ.get("LOG_BUCKET") or default.log_bucket,
        dead_letter_queue_arn=environ.get("DEAD_LETTER_QUEUE_ARN", ""),
        ended_queue_url=environ.get("ENDED_QUEUE_URL", ""),
        retention_days=read_whole_number(environ, "RETENTION_DAYS", default.retention_days),
        audit_retention_days=read_whole_number(
            environ, "AUDIT_RETENTION_DAYS", default.audit_retention_days
        ),
        delivery_deadline_seconds=read_whole_number(
            environ, "DELIVERY_DEADLINE", default.delivery_deadline_seconds
        ),
        own_containers_only=read_switch(
            environ, "OWN_CONTAINERS_ONLY", default.own_containers_only
        ),
        cors_origins=split_list(environ.get("CORS_ORIGINS", "")),
        log_level=environ.get("LOG_LEVEL") or default.log_level,
    )


def read_whole_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """The positive whole number in `name`; the default if it is unset or empty.

    Raises ValueError if it is not a positive whole number.
    """
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text)


def read_switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    """Whether `name` is on; the default if it is unset or empty. Raises ValueError for other words."""
    text = environ.get(name) or ("on" if default else "off")
    if text not in ("on", "off"):
        raise ValueError(f"{name} must be on or off, not {text!r}")
    return text == "on"


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, without spaces around them and without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


settings = load(os.environ)
