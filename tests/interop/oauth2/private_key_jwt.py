"""Authlib 1.9 on requests. It calls the audience "token endpoint": with the issuer there, the gate takes its assertions."""

import json
import os

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import OKPKey

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
issuer = os.environ["ISSUER"]
token_endpoint = requests.get(issuer + "/.well-known/oauth-authorization-server").json()["token_endpoint"]
key = OKPKey.import_key(json.loads(os.environ["KEY"]))


def token(audience):
    session = OAuth2Session("orders", key, scope="read", token_endpoint_auth_method="private_key_jwt")
    session.register_client_auth_method(PrivateKeyJWT(audience, headers={"kid": "k1"}, alg="EdDSA"))
    return session.fetch_token(token_endpoint, grant_type="client_credentials")


assert token(issuer)["scope"] == "read"
try:
    # Its default.
    token(token_endpoint)
except OAuthError as error:
    assert error.error == "invalid_client", error.error
else:
    raise AssertionError("the token endpoint is no audience")
