"""Signed URLs: nginx's secure_link digest over expiry, path and a secret, in CloudFront or S3 form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field

_SIGNATURE = re.compile(r"(?:^|&)(?:X-Amz-)?Signature=([^&]+)")
_EXPIRY = re.compile(r"(?:^|&)(?:Expires|X-Amz-Security-Token)=(\d+)")


@dataclass
class Signer:
    """Signs paths for ttl seconds, counted from aged seconds ago; form is "cloudfront" or "s3"."""

    ttl: float = 3600
    form: str = "cloudfront"
    aged: float = 0
    secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def digest(self, path: str, expires: int) -> str:
        """Return the signature that nginx computes for secure_link_md5 "$secure_link_expires$uri secret"."""
        raw = hashlib.md5(f"{expires}{path} {self.secret}".encode()).digest()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def query(self, path: str) -> str:
        """Return the signed query string for path."""
        start = time.time() - self.aged
        expires = int(start + self.ttl)
        signature = self.digest(path, expires)
        if self.form == "s3":
            date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(expires - int(self.ttl)))
            return (
                f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=standin%2F{date[:8]}%2Fauto%2Fs3%2Faws4_request"
                f"&X-Amz-Date={date}&X-Amz-Expires={int(self.ttl)}&X-Amz-Security-Token={expires}"
                f"&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
            )
        return f"X-Xet-Cas-Uid=public&Expires={expires}&Policy=standin&Signature={signature}&Key-Pair-Id=K1STANDIN"

    def verdict(self, method: str, path: str, query: str) -> str:
        """Return "ok", "bad" or "expired". An s3 URL is valid for GET only, since SigV4 signs the method."""
        signature, expiry = _SIGNATURE.search(query), _EXPIRY.search(query)
        if not signature or not expiry or (method == "HEAD" and "X-Amz-Signature=" in query):
            return "bad"
        if not hmac.compare_digest(signature[1], self.digest(path, int(expiry[1]))):
            return "bad"
        return "expired" if int(expiry[1]) < int(time.time()) else "ok"


def xml_error(code: str, message: str) -> bytes:
    """Return the XML error document of an S3-like store."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    )


AUTH_REFUSED = xml_error(
    "InvalidArgument",
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter "
    "or the Authorization header should be specified",
)
BAD_SIGNATURE = xml_error("SignatureDoesNotMatch", "The request signature we calculated does not match.")
EXPIRED = xml_error("AccessDenied", "Request has expired")
NO_SUCH_KEY = xml_error("NoSuchKey", "The specified key does not exist.")
BAD_RANGE = xml_error("InvalidRange", "The requested range is not satisfiable")
