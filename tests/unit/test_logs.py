"""The growing object in S3, and links to it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import create_autospec
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from chalicelib.clients import logs
from chalicelib.clients.aws import make_client
from chalicelib.clients.logs import MAX_PART_BYTES, MIN_PART_BYTES, GrowingObject
from chalicelib.config import settings

BASE = b"x" * MIN_PART_BYTES


def stored() -> bytes:
    return bytes(logs._s3().get_object(Bucket=settings.log_bucket, Key="k")["Body"].read())


@pytest.fixture
def log(aws: None) -> GrowingObject:
    return GrowingObject("k")


@pytest.fixture
def grown(log: GrowingObject) -> GrowingObject:
    """A log whose base is as small as a base may be."""
    log.write(BASE)
    log.settle(MIN_PART_BYTES)
    return log


def test_a_small_log_is_put_as_a_whole(log: GrowingObject) -> None:
    log.write(b"one")
    log.write(b"one two")
    assert stored() == b"one two"


def test_a_log_is_text_in_utf8_however_it_was_written(grown: GrowingObject) -> None:
    def kind() -> str:
        head = logs._s3().head_object(Bucket=settings.log_bucket, Key="k")
        return str(head["ContentType"])

    assert kind() == "text/plain; charset=utf-8"
    grown.write(b"more")
    assert kind() == "text/plain; charset=utf-8"


def test_a_large_log_grows_by_a_copy(grown: GrowingObject) -> None:
    grown.write(b"a")
    grown.write(b"ab")
    assert stored() == BASE + b"ab"


def test_each_settled_segment_becomes_base(grown: GrowingObject) -> None:
    grown.write(b"y" * MIN_PART_BYTES)
    grown.settle(MIN_PART_BYTES)
    grown.write(b"z")
    assert stored() == BASE + b"y" * MIN_PART_BYTES + b"z"


class S3:
    """The calls of a multipart upload."""

    def create_multipart_upload(self, **parameters: Any) -> Any: ...
    def upload_part_copy(self, **parameters: Any) -> Any: ...
    def upload_part(self, **parameters: Any) -> Any: ...
    def complete_multipart_upload(self, **parameters: Any) -> Any: ...
    def abort_multipart_upload(self, **parameters: Any) -> Any: ...


@pytest.fixture
def failing(grown: GrowingObject) -> Iterator[Any]:
    """S3 with one call that fails once: `failing(name)`."""
    with pytest.MonkeyPatch.context() as patch:

        def fail(name: str) -> None:
            def once(**parameters: Any) -> Any:
                patch.undo()
                raise ConnectionError(name)

            patch.setattr(logs._s3(), name, once)

        yield fail


@pytest.mark.parametrize(
    "call",
    ["create_multipart_upload", "upload_part_copy", "upload_part", "complete_multipart_upload"],
)
def test_a_failed_write_harms_nothing_and_is_made_good_by_the_next(
    grown: GrowingObject, failing: Any, call: str
) -> None:
    grown.write(b"a")
    failing(call)
    with pytest.raises(ConnectionError, match=call):
        grown.write(b"ab")
    assert stored() == BASE + b"a"
    grown.write(b"abc")
    assert stored() == BASE + b"abc"


def test_a_failed_write_leaves_no_upload_behind(grown: GrowingObject, failing: Any) -> None:
    failing("upload_part")
    with pytest.raises(ConnectionError):
        grown.write(b"a")
    uploads = logs._s3().list_multipart_uploads(Bucket=settings.log_bucket)
    assert uploads.get("Uploads", []) == []


def test_a_large_base_is_copied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = create_autospec(S3, instance=True)
    s3.create_multipart_upload.return_value = {"UploadId": "u"}
    s3.upload_part_copy.return_value = {"CopyPartResult": {"ETag": "e"}}
    s3.upload_part.return_value = {"ETag": "e"}
    monkeypatch.setattr(logs, "_s3", lambda: s3)
    log = GrowingObject("k")
    log.settle(MAX_PART_BYTES + 1)
    log.write(b"end")
    copied = [call.kwargs["CopySourceRange"] for call in s3.upload_part_copy.call_args_list]
    half = (MAX_PART_BYTES + 1) // 2
    assert copied == [f"bytes=0-{half - 1}", f"bytes={half}-{MAX_PART_BYTES}"]
    completed = s3.complete_multipart_upload.call_args.kwargs["MultipartUpload"]["Parts"]
    assert [part["PartNumber"] for part in completed] == [1, 2, 3]
    assert s3.upload_part.call_args.kwargs["PartNumber"] == 3


@pytest.mark.parametrize(
    "size", [MIN_PART_BYTES, MAX_PART_BYTES, MAX_PART_BYTES + 1, 3 * MAX_PART_BYTES + 7]
)
def test_copied_parts_cover_the_base_and_are_sizes_that_s3_takes(size: int) -> None:
    parts = logs._ranges(size)
    assert [number for number, _, _ in parts] == list(range(1, len(parts) + 1))
    assert parts[0][1] == 0
    assert parts[-1][2] == size - 1
    assert all(first == last + 1 for (_, _, last), (_, first, _) in pairwise(parts))
    assert all(MIN_PART_BYTES <= last - first + 1 <= MAX_PART_BYTES for _, first, last in parts)


def test_a_part_as_large_as_we_copy_at_once_is_not_split() -> None:
    assert logs._ranges(MAX_PART_BYTES) == [(1, 0, MAX_PART_BYTES - 1)]


@pytest.mark.usefixtures("aws")
def test_a_link_leads_to_the_buckets_own_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's global address would send whoever follows it on to another one, for which it is not signed."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    make_client.cache_clear()
    url = urlsplit(logs.make_link("logs/j/1/c.log", "job.log"))
    make_client.cache_clear()
    assert url.netloc == f"{settings.log_bucket}.s3.eu-central-1.amazonaws.com"


@pytest.mark.usefixtures("aws")
def test_a_link_downloads_the_log_under_its_name() -> None:
    url = urlsplit(logs.make_link("logs/j/1/c.log", "job.log"))
    asked = {name: value for name, (value,) in parse_qs(url.query).items()}
    assert url.path.endswith("/logs/j/1/c.log")
    assert settings.log_bucket in url.netloc + url.path
    assert asked["response-content-disposition"] == 'attachment; filename="job.log"'
    assert asked["response-content-type"] == "text/plain; charset=utf-8"
    assert asked["X-Amz-Expires"] == str(logs.LINK_SECONDS)
    assert asked["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"


def test_a_key_names_job_execution_and_container() -> None:
    assert logs.log_key("j", "1.000000", "c") == "logs/j/1.000000/c.log"


@pytest.mark.parametrize(("status", "known"), [(404, 0), (403, 0), (503, None)])
def test_to_who_may_not_list_a_403_is_no_log(
    log: GrowingObject, status: int, known: int | None
) -> None:
    def ask() -> int | None:
        with Stubber(logs._s3()) as s3:
            s3.add_client_error("head_object", str(status), http_status_code=status)
            try:
                return logs.get_known_size("k")
            except ClientError:
                return None

    assert ask() == known


def test_what_is_stored_is_counted_and_its_end_is_read(log: GrowingObject) -> None:
    assert logs.get_size("k") == 0
    log.write(b"0123456789")
    assert logs.get_size("k") == 10
    assert logs.read_end("k", 3) == b"789"
    assert logs.read_end("k", 100) == b"0123456789"


def test_a_bucket_that_refuses_is_not_an_empty_log(
    log: GrowingObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**parameters: Any) -> Any:
        answer = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "HeadObject")  # type: ignore[arg-type]

    monkeypatch.setattr(logs._s3(), "head_object", refuse)
    with pytest.raises(ClientError):
        logs.get_size("k")
