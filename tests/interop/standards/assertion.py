# Verifies assertions as docs/assertion.md says: python assertion.py GATE ASSERTION. Prints the subject.
# Snippet:
import sys
import jwt

gate, assertion = sys.argv[1:]
keys = jwt.PyJWKClient(f"{gate}/.well-known/jwks.json")
if jwt.get_unverified_header(assertion).get("typ") != "identity+jwt":
    raise jwt.InvalidTokenError("not an assertion")
claims = jwt.decode(assertion, keys.get_signing_key_from_jwt(assertion).key, algorithms=["EdDSA"],
                    issuer="http://gate.test", audience="app", options={"require": ["exp", "iat", "sub"]})
print(claims["sub"])
