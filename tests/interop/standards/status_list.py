# The status of a token of the gate, with PyJWT: python status_list.py GATE TOKEN. Its list is at the gate, whatever host the URL names.
import base64
import sys
import urllib.request
import zlib
from urllib.parse import urlsplit

import jwt

gate, token = sys.argv[1:]
keys = jwt.PyJWKClient(f"{gate}/.well-known/jwks.json")


def verified(text, kind, **rules):
    if jwt.get_unverified_header(text)["typ"] != kind:
        raise jwt.InvalidTokenError(kind)
    return jwt.decode(text, keys.get_signing_key_from_jwt(text).key, algorithms=["EdDSA"], **rules)


entry = verified(token, "at+jwt", audience="api")["status"]["status_list"]
with urllib.request.urlopen(gate + urlsplit(entry["uri"]).path) as reply:
    said = verified(reply.read().decode(), "statuslist+jwt", subject=entry["uri"], issuer="http://gate.test")["status_list"]
bits = zlib.decompress(base64.urlsafe_b64decode(said["lst"] + "=" * (-len(said["lst"]) % 4)))
print(bits[entry["idx"] // 8] >> entry["idx"] % 8 & said["bits"])
