"""The fields of a job as the tests know them: one row per field.

The rows say it independently of the product's list: a field that the product lost is missed here.
"""

from typing import Any, NamedTuple

# How a required field is marked.
REQUIRED = object()


class Field(NamedTuple):
    """Two values of a field, and what an answer shows if it was never sent."""

    sent: Any
    changed: Any
    default: Any = REQUIRED
    # Not in the source of the contract: an edit that leaves it out keeps what is stored.
    is_addition: bool = False


FIELDS = {
    "AppName": Field("2048", "2049"),
    "ServiceName": Field("2048_2048", "s", default=""),
    "Name": Field("上线", "下线"),
    "Cmd": Field("ps axu", "uptime"),
    "Privileged": Field(True, False, default=False),
    "User": Field("root:root", "0", default=""),
    "Env": Field(["a=b", "c=d"], ["e=f"], default=[]),
    "LogBytes": Field(5000, 9, default=0, is_addition=True),
    "SecretArgs": Field(["x", "yy"], ["new"], default=[]),
}
# Answers show masks of them.
SECRET = "SecretArgs"

FULL_JOB = {name: field.sent for name, field in FIELDS.items()}
CHANGED_JOB = {name: field.changed for name, field in FIELDS.items()}
DEFAULTS = {name: field.default for name, field in FIELDS.items() if field.default is not REQUIRED}
ADDITIONS = [name for name, field in FIELDS.items() if field.is_addition]
# Which an edit clears if it leaves them out.
CLEARED = [name for name in DEFAULTS if name not in (SECRET, *ADDITIONS)]
# Those that hold texts.
TEXTS = [name for name, field in FIELDS.items() if isinstance(field.sent, str | list)]
