"""Authlib 1.9 on requests, told nothing but the issuer."""

import os
from concurrent.futures import ThreadPoolExecutor

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
issuer, client_id, client_secret = os.environ["ISSUER"], os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]
metadata = requests.get(issuer + "/.well-known/oauth-authorization-server").json()
assert metadata["issuer"] == issuer, "another issuer"
token_endpoint = metadata["token_endpoint"]
assert "refresh_token" in metadata["grant_types_supported"]


def session(token=None, secret=client_secret):
    method = "client_secret_basic" if secret else "none"
    return OAuth2Session(
        client_id,
        secret or None,
        scope="read write",
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        token=token,
        token_endpoint=token_endpoint,
    )


def login():
    return session().fetch_token(token_endpoint, username=os.environ["USER_NAME"], password=os.environ["PASSWORD"])


def refresh(token):
    return session(dict(token)).refresh_token(token_endpoint, refresh_token=token["refresh_token"])


def call(token):
    return session(dict(token)).get(issuer + "/data").status_code


def refused(token):
    try:
        refresh(token)
    except OAuthError as error:
        assert error.error == "invalid_grant", error.error
    else:
        raise AssertionError("not refused")


if client_secret:
    try:
        session(secret="not the secret").fetch_token(
            token_endpoint, username=os.environ["USER_NAME"], password=os.environ["PASSWORD"]
        )
    except OAuthError as error:
        assert error.error == "invalid_client", error.error
    else:
        raise AssertionError("an impostor is not refused")

first = login()
assert first["expires_in"] == 600 and first["token_type"] == "Bearer"
keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"]).json())
claims = jwt.decode(first["access_token"], keys, algorithms=["EdDSA", "Ed25519"]).claims
assert claims["iss"] == issuer and claims["client_id"] == client_id
assert call(first) == 200

with ThreadPoolExecutor(11) as pool:
    others = [pool.submit(call, first) for _ in range(10)]
    second = pool.submit(refresh, first).result()
    assert [other.result() for other in others] == [200] * 10
assert second["refresh_token"] != first["refresh_token"]
assert call(second) == 200

requests.post(issuer + "/test/lose-the-next-reply")
try:
    refresh(second)
except requests.exceptions.ConnectionError:
    pass
else:
    raise AssertionError("the reply was not lost")
third = refresh(second)
assert third["access_token"] != second["access_token"]
assert call(third) == 200
fourth = refresh(third)
assert call(fourth) == 200

refused(second)
assert call(fourth) == 401

again = refresh(login())
revoked = session(dict(again)).revoke_token(
    metadata["revocation_endpoint"], token=again["refresh_token"], token_type_hint="refresh_token"
)
assert revoked.status_code == 200
refused(again)
assert call(again) == 401
