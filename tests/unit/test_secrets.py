"""Sealing, masks, and the merge of an edit."""

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import secrets
from chalicelib.errors import InvalidRequest, SecretsUnreadable
from chalicelib.secrets import Sealed


def stored(*lengths: int) -> list[Sealed]:
    return [Sealed(length, length, f"c{index}".encode()) for index, length in enumerate(lengths)]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("plain", ["", "a", "two words", "密码", "'\"\\"])
def test_a_secret_opens_for_its_job_alone(plain: str) -> None:
    sealed = secrets.seal("j1", plain)
    assert secrets.unseal("j1", sealed) == plain
    assert secrets.mask(sealed) == "*" * len(plain)
    assert len(plain) < 4 or plain.encode() not in sealed.ciphertext
    if plain:
        with pytest.raises((SecretsUnreadable, ClientError)):
            secrets.unseal("j2", sealed)


@pytest.mark.usefixtures("aws")
def test_the_contracts_examples() -> None:
    old = [secrets.seal("j", "a"), secrets.seal("j", "bb")]
    kept, new = secrets.merge("j", old, ["*", "new"])
    assert kept == old[0]
    assert secrets.unseal("j", new) == "new"
    assert secrets.merge("j", old, ["**"]) == [old[1]]
    assert secrets.merge("j", old, []) == []


def test_a_mask_without_a_secret_is_refused_by_its_index() -> None:
    with pytest.raises(InvalidRequest, match=r"SecretArgs\[1\]"):
        secrets.merge("j", stored(1), ["*", "*"])


def test_kept_secrets_count_in_bytes() -> None:
    with pytest.raises(InvalidRequest, match="3072"):
        secrets.merge("j", [Sealed(1000, 3000, b"c")], ["*" * 1000, "x" * 73])


@given(st.lists(st.integers(1, 4), max_size=8), st.data())
def test_masks_keep_each_secret_at_most_once(lengths: list[int], data: st.DataObject) -> None:
    old = stored(*lengths)
    shown = [secrets.mask(sealed) for sealed in old]
    sent = data.draw(st.permutations(shown))[: data.draw(st.integers(0, len(shown)))]
    kept = secrets.merge("j", old, sent)
    assert [secrets.mask(sealed) for sealed in kept] == sent
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(old)


def test_packing_keeps_all() -> None:
    assert secrets.unpack(secrets.pack(stored(1, 2))) == stored(1, 2)
    assert secrets.pack([]) is None
    assert secrets.unpack(None) == []
