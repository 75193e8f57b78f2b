"""What a name may hold."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.labels import find_fault, normalize


@pytest.mark.parametrize(
    "name", ["a", "上线", "a b", "👩\u200d🚀", "\u05d0\u200f", "e\u0301", "क्षि"]
)
def test_good(name: str) -> None:
    assert find_fault(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"a{c}b", f"U+{ord(c):04X}") for c in "\0\n\x1b\x7f\x85\u2028\u2029\u202a\u202e\u2069"),
        *(
            (name, "visible")
            for name in ("", " \u00a0", "\u200b\u200d", "\ufeff", "\u3164", "\u0301")
        ),
    ],
)
def test_bad(name: str, said: str) -> None:
    assert said in (find_fault(name) or "")


@given(st.text(st.characters(codec="utf-8")))
def test_a_good_name_has_one_spelling_that_is_good_as_well(name: str) -> None:
    one = normalize(name)
    assert normalize(one) == one == normalize(unicodedata.normalize("NFD", name))
    if find_fault(name) is None:
        assert find_fault(one) is None
