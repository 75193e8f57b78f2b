"""Logs in S3: the segments of a log that grows, the whole log in the end, and links to both.

Whatever has a key has always the same bytes: the key says which log's they are, and how many.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import RawIOBase
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.segments import Segment, SegmentGone, Span, plan_parts

LINK_SECONDS = 300
# Copying takes S3 longer than other calls take.
_ANSWER_SECONDS = 30
# How many segments of a log are read, or copied, at once.
_AT_ONCE = 8
# How many objects S3 deletes in one call.
_MAX_DELETED = 1000
_TYPE = "text/plain; charset=utf-8"
# The content of a part or an object: bytes, or a file.
Body = bytes | RawIOBase


def _s3() -> Any:
    return client("s3", _ANSWER_SECONDS)


def segment_key(log: str, segment: Segment) -> str:
    """The key of a segment's object in the bucket."""
    return f"segments/{log}/{segment.first}-{segment.size}"


def whole_key(log: str, size: int) -> str:
    """The key of a whole log of that size."""
    return f"logs/{log}/{size}.log"


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


def read(key: str, at_most: int) -> bytes | None:
    """The object, empty if there is none; None if it has more than `at_most` bytes."""
    try:
        answer = _get(key, f"0-{at_most}")
    except ClientError as error:
        if _is_missing(error):
            return b""
        raise
    with answer["Body"] as body:
        return None if answer["ContentLength"] > at_most else bytes(body.read())


def read_end(key: str, size: int) -> bytes:
    """The last `size` bytes of an object that is there and is not empty."""
    return bytes(_get(key, f"-{size}")["Body"].read())


def _get(key: str, span: str) -> Any:
    return _s3().get_object(Bucket=settings.log_bucket, Key=key, Range=f"bytes={span}")


def read_segments(log: str, spans: Sequence[Span]) -> bytes:
    """The bytes of these spans; the caller has seen to it that they are not too many.

    Raises SegmentGone.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return b"".join(pool.map(lambda span: _read_span(log, span), spans))


def _read_span(log: str, span: Span) -> bytes:
    if span.segment.content is not None:
        return span.segment.content[span.start : span.stop]
    key = segment_key(log, span.segment)
    try:
        return bytes(_get(key, _range(span))["Body"].read())
    except ClientError as error:
        if _is_missing(error):
            raise SegmentGone(key) from error
        raise


def _is_missing(error: ClientError) -> bool:
    return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 404)


def _range(span: Span) -> str:
    return f"{span.start}-{span.stop - 1}"


def put_segment(log: str, segment: Segment, body: Body) -> None:
    """Stores the bytes of a segment."""
    _put(segment_key(log, segment), body)


def _put(key: str, body: Body) -> None:
    _s3().put_object(Bucket=settings.log_bucket, Key=key, Body=body, ContentType=_TYPE)


def delete(keys: Sequence[str]) -> None:
    """Deletes these objects, as far as they are there."""
    for start in range(0, len(keys), _MAX_DELETED):
        objects = [{"Key": key} for key in keys[start : start + _MAX_DELETED]]
        _s3().delete_objects(Bucket=settings.log_bucket, Delete={"Objects": objects, "Quiet": True})


def assemble(key: str, log: str, spans: Sequence[Span], rest: Body | None = None) -> None:
    """Makes the object of these spans of the log's segments, followed by the rest.

    S3 copies what is large; small segments and the rest are sent to it. If there is a rest, all spans
    must be large.
    """
    parts: list[_Source] = [*plan_parts(spans), *([] if rest is None else [rest])]
    if len(parts) == 1 and not _copied_span(parts[0]):
        _put(key, _content(log, parts[0]))
        return
    upload = _Upload(key, log)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            upload.complete(list(pool.map(upload.add, range(1, len(parts) + 1), parts)))
    except BaseException:
        upload.abort()
        raise


# What a part is made of: spans of segments, or bytes of the caller.
_Source = list[Span] | Body


def _copied_span(source: _Source) -> Span | None:
    """What S3 copies itself; None if the part is sent to it."""
    return source[0] if isinstance(source, list) and source[0].is_large else None


def _content(log: str, source: _Source) -> Body:
    return read_segments(log, source) if isinstance(source, list) else source


class _Upload:
    """A multipart upload of parts of one log."""

    def __init__(self, key: str, log: str) -> None:
        self._log = log
        place = {"Bucket": settings.log_bucket, "Key": key}
        started = _s3().create_multipart_upload(**place, ContentType=_TYPE)
        self._upload = {**place, "UploadId": started["UploadId"]}

    def add(self, number: int, source: _Source) -> dict[str, Any]:
        """Copies or sends a part. Returns what S3 wants to know of it in the end."""
        part = {**self._upload, "PartNumber": number}
        if copied := _copied_span(source):
            answer = self._copy(part, copied)
        else:
            answer = _s3().upload_part(**part, Body=_content(self._log, source))
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _copy(self, part: dict[str, Any], span: Span) -> Any:
        key = segment_key(self._log, span.segment)
        return _s3().upload_part_copy(
            **part,
            CopySource={"Bucket": settings.log_bucket, "Key": key},
            CopySourceRange=f"bytes={_range(span)}",
        )["CopyPartResult"]

    def complete(self, parts: list[dict[str, Any]]) -> None:
        _s3().complete_multipart_upload(**self._upload, MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        _s3().abort_multipart_upload(**self._upload)
