"""A signature over a package: Ed25519 (RFC 8032) over the bytes of its manifest, which names every file with
its SHA-256. Whoever has the public key checks it by `verify.py --key`.

The key is a PEM file, as `openssl genpkey -algorithm ed25519` writes it. A Sigstore bundle is not made: it
needs an identity and a log on the network.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from finemesh.core.errors import InvalidError
from finemesh.finetune.manifests import MANIFEST

SIGNATURE: Final = f"{MANIFEST}.sig"


def sign(package: Path, key: Path) -> None:
    """Write `manifest.json.sig`: the signature in base64. Whatever changes the manifest later undoes it.

    Raises:
        InvalidError: SIGNING_KEY_UNSUITABLE.
    """
    signature = load_key(key).sign((package / MANIFEST).read_bytes())
    (package / SIGNATURE).write_bytes(base64.b64encode(signature) + b"\n")


def load_key(path: Path) -> Ed25519PrivateKey:
    """Raises InvalidError, reason SIGNING_KEY_UNSUITABLE."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidError(
            f"{path} holds no private key that can be read ({error}): make one by "
            "`openssl genpkey -algorithm ed25519`",
            reason="SIGNING_KEY_UNSUITABLE",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidError(
            f"{path} holds a key of another kind: packages are signed with Ed25519",
            reason="SIGNING_KEY_UNSUITABLE",
        )
    return key
