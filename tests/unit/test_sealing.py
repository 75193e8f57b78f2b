"""Sealing, masks, and the merge of an edit."""

from collections import Counter
from unittest.mock import create_autospec, patch

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.clients import sealing
from chalicelib.clients.aws import client
from chalicelib.clients.sealing import Sealed
from chalicelib.config import settings
from chalicelib.domain.errors import InvalidRequest, SecretsUnreadable


def stored(*lengths: int) -> list[Sealed]:
    return [Sealed(length, length, f"c{index}".encode()) for index, length in enumerate(lengths)]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("plain", ["", "a", "two words", "密码", "'\"\\"])
def test_a_secret_opens_for_its_job_alone(plain: str) -> None:
    sealed = sealing.seal("j1", plain)
    assert sealing.open_sealed("j1", sealed) == plain
    assert sealing.mask(sealed) == "*" * len(plain)
    assert len(plain) < 4 or plain.encode() not in sealed.ciphertext
    if plain:
        with pytest.raises(SecretsUnreadable):
            sealing.open_sealed("j2", sealed)


@pytest.mark.usefixtures("aws")
def test_the_contracts_examples() -> None:
    old = [sealing.seal("j", "a"), sealing.seal("j", "bb")]
    kept, new = sealing.merge("j", old, ["*", "new"])
    assert kept == old[0]
    assert sealing.open_sealed("j", new) == "new"
    assert sealing.merge("j", old, ["**"]) == [old[1]]
    assert sealing.merge("j", old, []) == []


def test_a_mask_without_a_secret_is_refused_by_its_index() -> None:
    with pytest.raises(InvalidRequest, match=r"SecretArgs\[1\]"):
        sealing.merge("j", stored(1), ["*", "*"])


def test_kept_secrets_count_in_bytes() -> None:
    with pytest.raises(InvalidRequest, match="3072"):
        sealing.merge("j", [Sealed(1000, 3000, b"c")], ["*" * 1000, "x" * 73])


@given(st.lists(st.integers(1, 4), max_size=8), st.data())
def test_masks_keep_each_secret_at_most_once(lengths: list[int], data: st.DataObject) -> None:
    old = stored(*lengths)
    shown = [sealing.mask(sealed) for sealed in old]
    sent = data.draw(st.permutations(shown))[: data.draw(st.integers(0, len(shown)))]
    kept = sealing.merge("j", old, sent)
    assert [sealing.mask(sealed) for sealed in kept] == sent
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(old)


def test_packing_keeps_all() -> None:
    assert sealing.unpack(sealing.pack(stored(1, 2))) == stored(1, 2)
    assert sealing.pack([]) is None
    assert sealing.unpack(None) == []


def fake_seal(job_id: str, plain: str) -> Sealed:
    return Sealed(len(plain), len(plain.encode()), f"new {plain}".encode())


@given(
    st.lists(st.integers(1, 3), max_size=6),
    st.lists(st.sampled_from(["", "*", "**", "***", "****", "a", "*a*", " *", "密"]), max_size=8),
)
def test_a_merge_keeps_in_order_and_refuses_exactly_what_it_must(
    lengths: list[int], sent: list[str]
) -> None:
    old = stored(*lengths)
    masks = Counter(len(text) for text in sent if text and set(text) == {"*"})
    seal = create_autospec(sealing.seal, side_effect=fake_seal)
    with patch.object(sealing, "seal", seal):
        if masks - Counter(lengths):
            with pytest.raises(InvalidRequest, match=r"SecretArgs\[\d\] is a mask"):
                sealing.merge("j", old, sent)
            seal.assert_not_called()
            return
        merged = sealing.merge("j", old, sent)
    left = list(old)
    for text, got in zip(sent, merged, strict=True):
        if text and set(text) == {"*"}:
            first = next(sealed for sealed in left if sealed.length == len(text))
            left.remove(first)
            assert got == first
        else:
            assert got == fake_seal("j", text)


def test_a_refused_merge_names_the_first_mask_without_a_secret() -> None:
    with pytest.raises(InvalidRequest, match=r"SecretArgs\[2\] is a mask of 2 characters"):
        sealing.merge("j", stored(1, 2), ["*", "**", "**", "***"])


def test_kept_and_new_secrets_may_fill_the_limit_together() -> None:
    with patch.object(sealing, "seal", create_autospec(sealing.seal, side_effect=fake_seal)):
        merged = sealing.merge("j", [Sealed(1000, 3000, b"c")], ["*" * 1000, "x" * 72])
    assert sum(sealed.size for sealed in merged) == sealing.MAX_BYTES


@pytest.mark.usefixtures("aws")
def test_the_same_secret_is_sealed_differently_for_another_job() -> None:
    assert sealing.seal("j1", "same").ciphertext != sealing.seal("j2", "same").ciphertext


@pytest.mark.usefixtures("aws")
def test_a_broken_ciphertext_is_unreadable() -> None:
    with pytest.raises(SecretsUnreadable, match="KMS does not open"):
        sealing.open_sealed("j1", Sealed(3, 3, b"no ciphertext at all" * 5))


@pytest.mark.usefixtures("aws")
def test_an_outage_of_kms_is_worth_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = sealing.seal("j1", "s")

    def throttled(**parameters: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Decrypt")

    monkeypatch.setattr(client("kms"), "decrypt", throttled)
    with pytest.raises(ClientError):
        sealing.open_sealed("j1", sealed)


def test_the_key_is_the_deployments_alias() -> None:
    assert settings.kms_key == f"alias/{settings.prefix}"
