"""Which texts are ids, and which id is the next one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import ExecutionNotFound, JobNotFound
from chalicelib.domain.ids import next_executor_id, parse_executor_id, parse_job_id

NOW = 1_496_287_694.460088
JOB_ID = "02de331e-7f0c-4f0a-9d52-6a1f0c6f7d0b"


def test_an_id_is_the_start_in_seconds_with_six_decimals() -> None:
    assert next_executor_id([], NOW) == "1496287694.460088"
    assert next_executor_id([], 7.0) == "7.000000"


def test_a_start_in_the_same_microsecond_takes_the_next() -> None:
    assert next_executor_id(["1496287694.460088"], NOW) == "1496287694.460089"


def test_a_clock_that_went_back_does_not_matter() -> None:
    assert next_executor_id(["2000.999999", "3.000000"], 1.0) == "2001.000000"


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=12))
def test_ids_grow_whatever_the_clocks_say(clocks: list[float]) -> None:
    ids: list[str] = []
    for now in clocks:
        ids.append(next_executor_id(ids, now))
        assert parse_executor_id(ids[-1]) == ids[-1]
    numbers = [int(made.replace(".", "")) for made in ids]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("text", ["1", "", "١.000000", "1.000000\n", "1.00000", "x" * 5000])
def test_what_is_no_executor_id_is_not_found(text: str) -> None:
    with pytest.raises(ExecutionNotFound):
        parse_executor_id(text)


@pytest.mark.parametrize(
    "text", ["", "j", JOB_ID.upper(), f"{{{JOB_ID}}}", JOB_ID.replace("-", "")]
)
def test_what_is_no_job_id_is_not_found(text: str) -> None:
    with pytest.raises(JobNotFound):
        parse_job_id(text)


def test_a_job_id_is_taken() -> None:
    assert parse_job_id(JOB_ID) == JOB_ID
