# The client of the MCP SDK for Python, which speaks version 2026-07-28: from a 401 through an outside provider to a call, a
# call that needs another scope. At a gate of older versions alone (second argument `older`), a client of both eras that the
# gate tells the versions. The first argument is the gate's URL.
import asyncio
import json
import sys
from urllib.parse import urljoin

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from user import METADATA, Browser, Kept

URL = urljoin(sys.argv[1], "/mcp")


async def main():
    kept, browser = Kept(), Browser(httpx2.AsyncClient)

    async def result():
        return AuthorizationCodeResult(**{name: browser.came_back.get(name) for name in ("code", "state", "iss")})

    metadata = OAuthClientMetadata(**METADATA, application_type="native")
    provider = OAuthClientProvider(URL, metadata, kept, redirect_handler=browser.open, callback_handler=result)
    statuses, errors = [], []

    async def seen(response):
        if str(response.url) == URL:
            statuses.append(response.status_code)
            if response.status_code == 400:
                errors.append(json.loads(await response.aread())["error"]["code"])

    async def call(mode, *names):
        async with httpx2.AsyncClient(auth=provider, event_hooks={"response": [seen]}) as web:
            async with Client(streamable_http_client(URL, http_client=web), mode=mode) as client:
                return [(await client.call_tool(name)).content[0].text for name in names]

    if sys.argv[2:] == ["older"]:
        # M21: the gate names its versions once, and the client goes on with one of them.
        (said,) = await call("auto", "whoami")
        assert json.loads(said)["subject"] == "ada" and errors == [-32022] and browser.logins == 1, (said, statuses, errors)
        print(kept.tokens.access_token)
        return

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
    # A client of both eras finds that this gate speaks the newer version.
    assert await call("auto", "read_file") == ["read"]
    assert browser.logins == 2 and errors == []
    print(kept.tokens.access_token)


asyncio.run(main())
