"""Signed URLs of the data origin, in the style of S3, and the check on arrival.

The signature covers method, host, raw path and the raw query before it, so a URL must be used byte for
byte. A URL signed for GET is good for HEAD too.
"""

import calendar
import hashlib
import hmac
import time
import urllib.parse

STAMP = "%Y%m%dT%H%M%SZ"


class Signer:
    def __init__(self, secret, host, config):
        self.secret = secret
        self.host = host
        self.config = config

    def url(self, method, path, parameters=()):
        """A signed URL for a path; `parameters` are extra (name, value) pairs under the signature."""
        moment = time.gmtime(time.time() - self.config.signature_age_s)
        query = urllib.parse.urlencode([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
            ("X-Amz-Credential", f"HUB/{time.strftime('%Y%m%d', moment)}/us-east-1/s3/aws4_request"),
            ("X-Amz-Date", time.strftime(STAMP, moment)),
            ("X-Amz-Expires", str(self.config.signature_lifetime_s)),
            ("X-Amz-SignedHeaders", "host"),
            *parameters,
        ], quote_via=urllib.parse.quote, safe="")
        return f"http://{self.host}{path}?{query}&X-Amz-Signature={self._sign(method, self.host, path, query)}"

    def problem(self, method, host, path, query):
        """Why a request must be refused: (code, message), or None if its signature is good."""
        signed, _, signature = query.rpartition("&X-Amz-Signature=")
        method = "GET" if method == "HEAD" else method
        if not hmac.compare_digest(signature.encode(), self._sign(method, host, path, signed).encode()):
            return "SignatureDoesNotMatch", "The request signature we calculated does not match."
        fields = dict(urllib.parse.parse_qsl(signed))
        began = calendar.timegm(time.strptime(fields["X-Amz-Date"], STAMP))
        if time.time() >= began + int(fields["X-Amz-Expires"]):
            return "AccessDenied", "Request has expired"
        return None

    def _sign(self, method, host, path, query):
        text = "\n".join((method, host, path, query)).encode("latin-1", "replace")
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()
