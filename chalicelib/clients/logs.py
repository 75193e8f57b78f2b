"""Logs in S3: their keys, links to them, and the object that grows while a command runs.

S3 objects cannot be appended to. Below 5 MiB (the smallest part of a multipart upload) the whole object
is put again. Above, a multipart upload makes the new object from a server-side copy of the old one and
the new bytes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import IO, Any

from botocore.exceptions import ClientError

from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.segments import Segment, Span

# The smallest part that S3 takes in a multipart upload (the last part may be smaller), and our largest
# part. S3 would copy up to 5 GiB in one call, but not in the time that we give a call.
MIN_PART_BYTES = 5 * 1024**2
MAX_PART_BYTES = 1024**3
LINK_SECONDS = 300
# Copying takes S3 longer than other calls take.
_ANSWER_SECONDS = 30
# How many segments are read at once.
_READS = 16
Part = dict[str, Any]
_TYPE = "text/plain; charset=utf-8"


def _s3() -> Any:
    return client("s3", _ANSWER_SECONDS)


def log_key(job_id: str, executor_id: str, container_id: str) -> str:
    """The key of one target's log in the bucket."""
    return f"logs/{job_id}/{executor_id}/{container_id}.log"


def segment_key(log: str, segment: Segment) -> str:
    """The key of a segment's object: whatever has this key has the same bytes."""
    return f"segments/{log}/{segment.first}-{segment.size}"


def whole_key(log: str, size: int) -> str:
    """The key of a whole log that was put together: whatever has this key has the same bytes."""
    return f"logs/{log}/{size}.log"


def read_segments(log: str, spans: Sequence[Span]) -> bytes:
    """The bytes of these spans; the caller has seen to it that they are not too many."""
    with ThreadPoolExecutor(_READS) as pool:
        return b"".join(pool.map(lambda span: _read_span(log, span), spans))


def _read_span(log: str, span: Span) -> bytes:
    if span.segment.content is not None:
        return span.segment.content[span.skip :]
    key = segment_key(log, span.segment)
    with _s3().get_object(Bucket=settings.log_bucket, Key=key)["Body"] as body:
        return bytes(body.read())[span.skip :]


def make_link(key: str, filename: str) -> str:
    """A URL that downloads the log under that file name for some minutes."""
    parameters = {
        "Bucket": settings.log_bucket,
        "Key": key,
        "ResponseContentType": _TYPE,
        "ResponseContentDisposition": f'attachment; filename="{filename}"',
    }
    return str(
        _s3().generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_SECONDS)
    )


def get_size(key: str) -> int:
    """How many bytes of the log are stored so far."""
    try:
        return int(_s3().head_object(Bucket=settings.log_bucket, Key=key)["ContentLength"])
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return 0
        raise


def get_known_size(key: str) -> int:
    """Like `get_size`, but 0 if S3 answers 403 too: it does if a log is missing and we may not list."""
    try:
        return get_size(key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return 0
        raise


def read(key: str, at_most: int) -> bytes | None:
    """The log so far, empty if there is none; None if it has more than `at_most` bytes."""
    span = f"bytes=0-{at_most}"
    try:
        answer = _s3().get_object(Bucket=settings.log_bucket, Key=key, Range=span)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return b""
        raise
    with answer["Body"] as body:
        return None if answer["ContentLength"] > at_most else bytes(body.read())


def read_end(key: str, size: int) -> bytes:
    """The last `size` bytes of a log that is stored and is not empty."""
    span = f"bytes=-{size}"
    answer = _s3().get_object(Bucket=settings.log_bucket, Key=key, Range=span)
    return bytes(answer["Body"].read())


class GrowingObject:
    """A log that grows: a base that does not change any more, and one segment after it.

    The object in S3 is always the base and the last written segment. So you may call `write` again with
    a longer segment, or after a failure. `settle` makes the segment a part of the base.
    """

    def __init__(self, key: str) -> None:
        self._place = {"Bucket": settings.log_bucket, "Key": key}
        self._base = 0

    def write(self, segment: bytes | IO[bytes]) -> None:
        """Makes the object the base followed by the segment (at most 5 GiB)."""
        if self._base:
            self._write_after_base(segment)
        else:
            _s3().put_object(**self._place, Body=segment, ContentType=_TYPE)

    def settle(self, size: int) -> None:
        """Makes the last segment, of `size` bytes, part of the base; the next one starts after it.

        S3 copies no part below MIN_PART_BYTES, so the first segment must not be smaller.
        """
        self._base += size

    def _write_after_base(self, segment: bytes | IO[bytes]) -> None:
        s3 = _s3()
        started = s3.create_multipart_upload(**self._place, ContentType=_TYPE)
        upload = {**self._place, "UploadId": started["UploadId"]}
        try:
            parts = [self._copy_part(upload, *part) for part in _ranges(self._base)]
            answer = s3.upload_part(**upload, PartNumber=len(parts) + 1, Body=segment)
            parts.append(_part(len(parts) + 1, answer))
            s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            s3.abort_multipart_upload(**upload)
            raise

    def _copy_part(self, upload: dict[str, Any], number: int, first: int, last: int) -> Part:
        answer = _s3().upload_part_copy(
            **upload,
            PartNumber=number,
            CopySource=self._place,
            CopySourceRange=f"bytes={first}-{last}",
        )
        return _part(number, answer["CopyPartResult"])


def _ranges(size: int) -> list[tuple[int, int, int]]:
    """Cuts `size` bytes into equal parts that S3 takes: (number, first byte, last byte) of each."""
    count = -(-size // MAX_PART_BYTES)
    edges = [size * index // count for index in range(count + 1)]
    return [
        (number, first, end - 1) for number, (first, end) in enumerate(pairwise(edges), start=1)
    ]


def _part(number: int, answer: dict[str, Any]) -> Part:
    return {"PartNumber": number, "ETag": answer["ETag"]}
