"""The key with which webhooks of subscriptions are signed: Ed25519, one for all processes that share a store."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from crdt_sessions.clock import Clock
from crdt_sessions.storage import StreamStore
from crdt_sessions_server.http.stored_secret import stored_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PATH = "__ds/key"


class SigningKey:
    """The key. It is made when it is asked for the first time, and kept in the store from then on.

    Args:
        store: where it is kept.
        clock: the only source of time.
    """

    def __init__(self, store: StreamStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._key: Ed25519PrivateKey | None = None

    async def public(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key; its ``kid`` is made of it."""
        key = await self._loaded()
        found = {"crv": "Ed25519", "kty": "OKP", "x": _spelled(key.public_key().public_bytes_raw())}
        thumbprint = hashlib.sha256(json.dumps(found, separators=(",", ":")).encode()).digest()  # RFC 7638
        return {**found, "kid": f"ds_{_spelled(thumbprint)}", "use": "sig", "alg": "EdDSA"}

    async def headers(self, body: bytes) -> dict[str, str]:
        """Return the headers of a webhook with this body."""
        key, at = await self._loaded(), self._clock.now() // 1000
        signature = _spelled(key.sign(f"{at}.".encode() + body))
        signed = f"t={at},kid={(await self.public())['kid']},ed25519={signature}"
        return {"content-type": "application/json", "webhook-signature": signed}

    async def _loaded(self) -> Ed25519PrivateKey:
        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # when it is needed

            fresh = Ed25519PrivateKey.generate().private_bytes_raw().hex()
            found = await stored_secret(self._store, self._clock, _PATH, "ed25519", fresh)
            self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(found))
        return self._key


def _spelled(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
