# The MCP SDK for Python, told the gate as its authorization server: it exchanges identity assertions of a stand-in for an
# identity provider, calls a tool, steps up after a 403, and goes on when its token is over.
import asyncio
import json
import os
import time
import uuid

import httpx2
import jwt
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthToken
from user import Kept

ISSUER, IDP, JWK = os.environ["ISSUER"], os.environ["IDP"], json.loads(os.environ["KEY"])
URL = f"{ISSUER}/mcp"


async def assertion(audience, resource):
    """What the identity provider would say."""
    now = int(time.time())
    said = dict(iss=IDP, sub="ada", aud=audience, resource=resource, client_id="wiki", scope="read write")
    said.update(jti=str(uuid.uuid4()), iat=now, exp=now + 300)
    return jwt.encode(said, jwt.PyJWK(JWK).key, "EdDSA", headers={"typ": "oauth-id-jag+jwt", "kid": JWK["kid"]})


async def calls(method, token=None):
    kept, statuses = Kept(), []
    kept.tokens = token and OAuthToken(access_token=token, token_type="Bearer")
    provider = IdentityAssertionOAuthProvider(
        URL, kept, "wiki", os.environ["CLIENT_SECRET"], ISSUER, assertion, scope="read", token_endpoint_auth_method=method
    )

    async def seen(response):
        if str(response.url) == URL:
            statuses.append(response.status_code)

    async def call(name):
        return (await client.call_tool(name)).content[0].text

    async with httpx2.AsyncClient(auth=provider, event_hooks={"response": [seen]}) as web:
        async with Client(streamable_http_client(URL, http_client=web), mode="2026-07-28") as client:
            assert await call("read_file") == "read"
            assert kept.tokens.scope == "read" and statuses.count(401) == 1, (kept.tokens, statuses)
            assert await call("delete_file") == "deleted"
            assert set(kept.tokens.scope.split()) == {"read", "write"} and statuses.count(403) == 1, statuses
            assert await call("read_file") == "read" and statuses.count(401) == 1, statuses


async def main():
    await calls("client_secret_post")
    await calls("client_secret_basic", "over")


asyncio.run(main())
