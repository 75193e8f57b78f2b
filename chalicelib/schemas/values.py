"""Values that several shapes hold.

Descriptions and `extra_json_schema`, here and in the shapes, are for the OpenAPI document. They check
nothing.
"""

from typing import Annotated

from msgspec import Meta

from chalicelib.domain.ids import EXECUTOR_ID

Time = Annotated[float, Meta(description="Seconds since 1970.")]
JobId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
ExecutorId = Annotated[
    str,
    Meta(description="The start time in seconds.", pattern=f"^{EXECUTOR_ID}$"),
]
