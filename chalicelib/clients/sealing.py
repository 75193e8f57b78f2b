"""Secret arguments: sealed one by one with KMS, shown as masks, opened only where they are used.

Each secret has its own ciphertext, so an edit that keeps some of them needs no right to decrypt.
The encryption context is the job: a ciphertext that is moved to another job does not open.
"""

import msgspec
from botocore.exceptions import ClientError

from chalicelib.clients.aws import client
from chalicelib.config import settings
from chalicelib.domain.errors import InvalidRequest, SecretsUnreadable

# With these codes KMS will refuse the next time too: the key, the ciphertext or the permission is gone.
# After other codes we try again.
_FINAL = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)


# All secrets of a job together, in UTF-8.
MAX_BYTES = 3 * 1024


class Sealed(msgspec.Struct, frozen=True, array_like=True):
    """One secret: its length in characters, its size in bytes (UTF-8), its ciphertext.

    The empty secret has an empty ciphertext: KMS refuses to encrypt nothing.
    """

    length: int
    size: int
    ciphertext: bytes


def seal(job_id: str, plain: str) -> Sealed:
    """The secret, encrypted for this job."""
    if not plain:
        return Sealed(0, 0, b"")
    answer = client("kms").encrypt(
        KeyId=settings.kms_key, Plaintext=plain.encode(), EncryptionContext={"JobId": job_id}
    )
    return Sealed(len(plain), len(plain.encode()), answer["CiphertextBlob"])


def open_sealed(job_id: str, sealed: Sealed) -> str:
    """The secret in plain text.

    Raises SecretsUnreadable if KMS will refuse the next time too.
    """
    if not sealed.ciphertext:
        return ""
    try:
        answer = client("kms").decrypt(
            CiphertextBlob=sealed.ciphertext, EncryptionContext={"JobId": job_id}
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _FINAL:
            raise SecretsUnreadable(f"KMS does not open the secret arguments: {code}") from None
        raise
    return str(answer["Plaintext"].decode())


def mask(sealed: Sealed) -> str:
    """As many `*` as the secret has characters."""
    return "*" * sealed.length


def merge(job_id: str, stored: list[Sealed], sent: list[str]) -> list[Sealed]:
    """The secrets of an edited job: what was sent, with stored secrets in the place of masks.

    Each mask takes the first stored secret of its length that no earlier mask took.

    Raises InvalidRequest, before anything is sealed, if a mask matches no secret (the error names its
    index), or if all secrets together have too many bytes.
    """
    left = list(stored)
    kept = [_take(left, mask, index) for index, mask in enumerate(sent)]
    require_size(
        sum(old.size if old else len(new.encode()) for old, new in zip(kept, sent, strict=True))
    )
    return [old or seal(job_id, new) for old, new in zip(kept, sent, strict=True)]


def _take(left: list[Sealed], sent: str, index: int) -> Sealed | None:
    if not sent or sent.strip("*"):
        return None
    for sealed in left:
        if sealed.length == len(sent):
            left.remove(sealed)
            return sealed
    raise InvalidRequest(
        f"SecretArgs[{index}] is a mask of {len(sent)} characters, and no stored secret of that "
        "length is left for it; send the masks that the job shows, or the new secret itself"
    )


def require_size(size: int) -> None:
    """Raises InvalidRequest if a job's secrets together have more bytes (UTF-8) than allowed."""
    if size > MAX_BYTES:
        raise InvalidRequest(f"SecretArgs must have at most {MAX_BYTES} bytes together, not {size}")


def pack(secrets: list[Sealed]) -> bytes | None:
    """The secrets as one stored value; None if there are none."""
    return msgspec.msgpack.encode(secrets) if secrets else None


def unpack(packed: bytes | None) -> list[Sealed]:
    """The inverse of `pack`."""
    return msgspec.msgpack.decode(packed, type=list[Sealed]) if packed else []
