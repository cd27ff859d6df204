# The client of the MCP SDK for Python, which speaks version 2026-07-28: from a 401 through an outside provider to a call, a
# call that needs another scope, and a client that finds the version by itself. The argument is the gate's URL.
import asyncio
import sys
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

REDIRECT = "http://127.0.0.1/callback"
URL = urljoin(sys.argv[1], "/mcp")


class Kept(TokenStorage):
    """Keeps what the SDK was given in memory."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Browser:
    """Follows the provider's redirects with its cookies until it comes back to the client."""

    def __init__(self):
        self.logins, self.came_back = 0, None

    async def open(self, url):
        self.logins += 1
        async with httpx2.AsyncClient() as web:
            for _ in range(20):
                reply = await web.get(url)
                assert 300 <= reply.status_code < 400, f"{url}: {reply.status_code} {reply.text}"
                url = urljoin(url, reply.headers["location"])
                if url.startswith(REDIRECT):
                    self.came_back = dict(parse_qsl(urlsplit(url).query))
                    return
        raise AssertionError("the provider does not come back")

    async def result(self):
        return AuthorizationCodeResult(**{name: self.came_back.get(name) for name in ("code", "state", "iss")})


async def main():
    kept, browser = Kept(), Browser()
    metadata = OAuthClientMetadata(
        client_name="python",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
        application_type="native",
    )
    provider = OAuthClientProvider(URL, metadata, kept, redirect_handler=browser.open, callback_handler=browser.result)
    statuses = []

    async def seen(response):
        if str(response.url) == URL:
            statuses.append(response.status_code)

    async def call(mode, *names):
        async with httpx2.AsyncClient(auth=provider, event_hooks={"response": [seen]}) as web:
            async with Client(streamable_http_client(URL, http_client=web), mode=mode) as client:
                return [(await client.call_tool(name)).content[0].text for name in names]

    assert await call("2026-07-28", "read_file") == ["read"]
    assert browser.logins == 1 and "write" not in kept.tokens.scope.split(), kept.tokens.scope
    # An access token that is over: the SDK refreshes it, and the user sees nothing.
    before = kept.tokens.access_token
    provider.context.token_expiry_time = 1.0
    assert await call("2026-07-28", "read_file") == ["read"]
    assert browser.logins == 1 and kept.tokens.access_token != before
    # M21: the call that needs another scope asks the user for it once, and passes at the next attempt. The client registered for
    # the scopes of the first challenge alone, and this provider then refuses others: so it registers again.
    kept.client = provider.context.client_info = None
    statuses.clear()
    assert await call("2026-07-28", "delete_file", "read_file") == ["deleted", "read"]
    assert statuses.count(403) == 1, statuses
    assert browser.logins == 2 and {"read", "write"} <= set(kept.tokens.scope.split()), kept.tokens.scope
    # A client of both eras finds the version by itself.
    assert await call("auto", "read_file") == ["read"]
    assert browser.logins == 2
    print(kept.tokens.access_token)


asyncio.run(main())
