"""Patient and study identifiers are compared, never kept: `pseudonym`."""

from __future__ import annotations

import hashlib
import os
import secrets

__all__ = ["pseudonym"]

# With a key that dies with the process nobody can look an identifier up in what was written, not
# even by trying all of them. Who needs the same pseudonyms in the next process, for the same
# draws of labelled patients, keeps a key of their own in this variable.
_VARIABLE = "CXR_PATIENT_KEY"
_KEY = secrets.token_bytes(32)


def pseudonym(data_set: str, identifier: str) -> str:
    """A keyed hash of a patient's or a study's identifier, 32 hex digits.

    Equal identifiers of one data set give equal hashes within a process, and from process to
    process if the environment variable CXR_PATIENT_KEY holds the same secret.

    Args:
        data_set: Keeps equal numbers of two data sets, or of patients and studies, apart.
        identifier: As the table or the header has it; surrounding space does not count.
    """
    own = os.environ.get(_VARIABLE, "")
    # blake2b takes at most 64 bytes of key; a longer secret must not be cut silently.
    key = hashlib.sha256(own.encode()).digest() if own else _KEY
    text = f"{data_set}\0{identifier.strip()}"
    return hashlib.blake2b(text.encode(), key=key, digest_size=16).hexdigest()
