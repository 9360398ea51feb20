"""Signed URLs of the data origin, in the styles of S3 and CloudFront, and the check on arrival.

The signature covers method, host, raw path and the raw query before it, so a URL must be used byte for
byte. A URL signed for GET is good for HEAD too.
"""

import calendar
import hashlib
import hmac
import time
import urllib.parse

STAMP = "%Y%m%dT%H%M%SZ"
SIGNATURES = {"s3": "&X-Amz-Signature=", "cloudfront": "&Signature="}
KEY_PAIR = "&Key-Pair-Id=TESTHUB"


class Signer:
    def __init__(self, secret, host, config, scheme="http"):
        self.secret = secret
        self.scheme = scheme
        self.host = host
        self.config = config

    def using(self, config):
        """A signer with these settings."""
        return Signer(self.secret, self.host, config, self.scheme)

    def url(self, method, path, parameters=()):
        """A signed URL for a path; `parameters` are extra (name, value) pairs under the signature."""
        config = self.config
        lifetime = config.upload_lifetime_s if method == "PUT" else config.signature_lifetime_s
        began = int(time.time()) - config.signature_age_s
        fields = (
            self._cloudfront(began + lifetime)
            if config.signature_style == "cloudfront"
            else self._s3(began, lifetime)
        )
        query = urllib.parse.urlencode([*fields, *parameters], quote_via=urllib.parse.quote, safe="")
        signature = SIGNATURES[config.signature_style] + self._sign(method, self.host, path, query)
        return f"{self.scheme}://{self.host}{path}?{query}{signature}" + (
            KEY_PAIR if "&Sig" in signature else ""
        )

    def _s3(self, began, lifetime):
        moment = time.gmtime(began)
        return [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
            ("X-Amz-Credential", f"HUB/{time.strftime('%Y%m%d', moment)}/us-east-1/s3/aws4_request"),
            ("X-Amz-Date", time.strftime(STAMP, moment)),
            ("X-Amz-Expires", str(lifetime)),
            ("X-Amz-SignedHeaders", "host"),
        ]

    def _cloudfront(self, end):
        return [("Expires", str(end)), ("Policy", "eyJTdGF0ZW1lbnQiOltdfQ__")]

    def problem(self, method, host, path, query):
        """Why a request must be refused: (code, message), or None if its signature is good."""
        query = query.removesuffix(KEY_PAIR)
        signed, _, signature = query.rpartition(
            next((text for text in SIGNATURES.values() if text in query), "&")
        )
        method = "GET" if method == "HEAD" else method
        if not hmac.compare_digest(signature.encode(), self._sign(method, host, path, signed).encode()):
            return "SignatureDoesNotMatch", "The request signature we calculated does not match."
        fields = dict(urllib.parse.parse_qsl(signed))
        if time.time() >= self._end(fields):
            return self.expired()
        return None

    def expired(self):
        """(code, message) of the refusal of an expired URL."""
        return "AccessDenied", "Request has expired" if self.config.expired_body == "s3" else "Access denied"

    def _end(self, fields):
        if "Expires" in fields:
            return int(fields["Expires"])
        return calendar.timegm(time.strptime(fields["X-Amz-Date"], STAMP)) + int(fields["X-Amz-Expires"])

    def _sign(self, method, host, path, query):
        text = "\n".join((method, host, path, query)).encode("latin-1", "replace")
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()
