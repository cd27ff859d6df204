"""requests-oauthlib 2, told nothing but the issuer."""

import os
from concurrent.futures import ThreadPoolExecutor

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests
from requests.auth import HTTPBasicAuth
from oauthlib.oauth2 import InvalidClientError, InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

issuer, client_id, client_secret = os.environ["ISSUER"], os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]
metadata = requests.get(issuer + "/.well-known/oauth-authorization-server").json()
assert metadata["issuer"] == issuer, "another issuer"
token_endpoint = metadata["token_endpoint"]


def session(token=None):
    client = LegacyApplicationClient(client_id=client_id, scope=["read", "write"])
    return OAuth2Session(client=client, token=token)


def proof(secret=client_secret):
    return HTTPBasicAuth(client_id, secret) if secret else None


def login(auth=proof()):
    return session().fetch_token(
        token_endpoint,
        username=os.environ["USER_NAME"],
        password=os.environ["PASSWORD"],
        client_id=client_id,
        include_client_id=True,
        auth=auth,
    )


def refresh(token):
    return session(dict(token)).refresh_token(
        token_endpoint, refresh_token=token["refresh_token"], client_id=client_id, auth=proof()
    )


def call(token):
    return session(dict(token)).get(issuer + "/data").status_code


def refused(token):
    try:
        refresh(token)
    except InvalidGrantError as error:
        assert error.status_code == 400
    else:
        raise AssertionError("not refused")


if client_secret:
    try:
        login(proof("not the secret"))
    except InvalidClientError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("an impostor is not refused")

first = login()
assert first["expires_in"] == 600 and first["token_type"] == "Bearer"
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
client = LegacyApplicationClient(client_id=client_id)
url, headers, body = client.prepare_token_revocation_request(
    metadata["revocation_endpoint"], again["refresh_token"], token_type_hint="refresh_token"
)
revoked = requests.post(url, headers=headers, data=body + "&client_id=" + client_id, auth=proof())
assert revoked.status_code == 200
refused(again)
assert call(again) == 401
