"""Logs in S3: how a whole log is put together, and links to it."""

import io
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError

from chalicelib.clients import logs
from chalicelib.clients.aws import make_client
from chalicelib.config import settings
from chalicelib.domain.segments import MIN_PART_BYTES, Segment, Span
from tests.support.costs import count_costs
from tests.support.logged import stored_objects

LOG = "j/1.000000/c"
LARGE = b"x" * MIN_PART_BYTES


def put(first: int, content: bytes) -> Span:
    """A segment in S3, and all of it."""
    segment = Segment(first, len(content))
    logs.put_segment(LOG, segment, content)
    return Span(segment, 0, len(content))


def inline(first: int, content: bytes) -> Span:
    return Span(Segment(first, len(content), content), 0, len(content))


def read(key: str = "k") -> bytes:
    return bytes(logs._s3().get_object(Bucket=settings.log_bucket, Key=key)["Body"].read())


def test_keys_name_a_log_and_what_they_have_of_it() -> None:
    assert logs.segment_key(LOG, Segment(5, 7)) == "segments/j/1.000000/c/5-7"
    assert logs.whole_key(LOG, 12) == "logs/j/1.000000/c/12.log"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("body", [b"one two", io.BytesIO(b"one two")])
def test_a_log_of_one_part_is_put(monkeypatch: pytest.MonkeyPatch, body: Any) -> None:
    with count_costs(monkeypatch) as costs:
        logs.assemble("k", LOG, [], body)
    assert read() == b"one two"
    assert costs.requests == {"PutObject": 1}


@pytest.mark.usefixtures("aws")
def test_large_segments_are_copied_and_the_rest_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [put(0, LARGE), put(len(LARGE), LARGE)]
    with count_costs(monkeypatch) as costs:
        logs.assemble("k", LOG, spans, b"rest")
    assert read() == LARGE + LARGE + b"rest"
    assert costs.requests == {
        "CreateMultipartUpload": 1,
        "UploadPartCopy": 2,
        "UploadPart": 1,
        "CompleteMultipartUpload": 1,
    }


@pytest.mark.usefixtures("aws")
def test_small_segments_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [put(0, LARGE), inline(len(LARGE), b"one"), put(len(LARGE) + 3, b"two")]
    with count_costs(monkeypatch) as costs:
        logs.assemble("k", LOG, spans)
    assert read() == LARGE + b"onetwo"
    assert (costs.requests["UploadPartCopy"], costs.requests["UploadPart"]) == (1, 1)


@pytest.mark.usefixtures("aws")
def test_only_the_part_of_a_segment_that_is_missing_is_taken() -> None:
    longer = put(0, b"one" + LARGE)
    logs.assemble("k", LOG, [inline(0, b"on"), Span(longer.segment, 2, longer.segment.size)])
    assert read() == b"one" + LARGE


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("spans", [[], [LARGE]])
def test_a_log_is_text_in_utf8_however_it_was_written(spans: list[bytes]) -> None:
    logs.assemble("k", LOG, [put(0, content) for content in spans], b"rest")
    head = logs._s3().head_object(Bucket=settings.log_bucket, Key="k")
    assert head["ContentType"] == "text/plain; charset=utf-8"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    "call",
    ["create_multipart_upload", "upload_part_copy", "upload_part", "complete_multipart_upload"],
)
def test_a_failure_leaves_no_object_and_no_upload_and_harms_no_later_try(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(**parameters: Any) -> Any:
        raise ConnectionError(call)

    spans = [put(0, LARGE)]
    with monkeypatch.context() as patch:
        patch.setattr(logs._s3(), call, fail)
        with pytest.raises(ConnectionError, match=call):
            logs.assemble("k", LOG, spans, b"rest")
    uploads = logs._s3().list_multipart_uploads(Bucket=settings.log_bucket)
    assert (uploads.get("Uploads", []), stored_objects("k")) == ([], {})
    logs.assemble("k", LOG, spans, b"rest")
    assert read() == LARGE + b"rest"


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


@pytest.mark.usefixtures("aws")
def test_an_object_is_read_up_to_a_size_and_from_its_end() -> None:
    assert logs.read("k", 10) == b""
    logs.assemble("k", LOG, [], b"0123456789")
    assert (logs.read("k", 10), logs.read("k", 9)) == (b"0123456789", None)
    assert logs.read_end("k", 3) == b"789"
    assert logs.read_end("k", 100) == b"0123456789"


@pytest.mark.usefixtures("aws")
def test_a_bucket_that_refuses_is_not_an_empty_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**parameters: Any) -> Any:
        answer = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(answer, "GetObject")  # type: ignore[arg-type]

    monkeypatch.setattr(logs._s3(), "get_object", refuse)
    with pytest.raises(ClientError):
        logs.read("k", 10)
    with pytest.raises(ClientError):
        logs.read_segments(LOG, [Span(Segment(0, 9), 0, 9)])


@pytest.mark.usefixtures("aws")
def test_1000_objects_are_deleted_by_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    put(0, b"x")
    keys = [logs.segment_key(LOG, Segment(first, 1)) for first in range(1000)]
    with count_costs(monkeypatch) as costs:
        logs.delete(keys)
    assert costs.requests == {"DeleteObjects": 1}
    assert stored_objects("segments/") == {}
