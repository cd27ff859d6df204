# The client of version 1 of the MCP SDK for Python, told nothing but the URL of the server: from a 401 through an outside
# provider to a call, a refresh, and another scope after a 403: of another path, or of one call (second argument `calls`). The
# first argument is the gate's URL.
import asyncio
import json
import sys
from urllib.parse import urljoin

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from user import METADATA, Browser, Kept


async def main():
    kept, browser = Kept(), Browser(httpx.AsyncClient)

    async def result():
        return browser.came_back["code"], browser.came_back.get("state")

    async def call(path, tool, logins):
        """Calls the tool at this path; the SDK asks for so many logins meanwhile."""
        before, statuses = browser.logins, []
        url = urljoin(sys.argv[1], path)

        async def seen(response):
            if str(response.url) == url:
                statuses.append(response.status_code)

        metadata = OAuthClientMetadata(**METADATA)
        provider = OAuthClientProvider(url, metadata, kept, redirect_handler=browser.open, callback_handler=result)
        async with httpx.AsyncClient(auth=provider, event_hooks={"response": [seen]}) as web:
            async with streamable_http_client(url, http_client=web) as (read, write, _):
                async with ClientSession(read, write) as session:
                    await session.initialize()
                    said = await session.call_tool(tool)
                    if logins:
                        # An access token that is over: the SDK refreshes it at the provider that it has found, and the user
                        # sees nothing.
                        token, provider.context.token_expiry_time = kept.tokens.access_token, 1.0
                        assert (await session.call_tool(tool)).content == said.content
                        assert kept.tokens.access_token != token
        assert browser.logins - before == logins, browser.logins
        refused = [status for status in statuses if status in (401, 403)]
        assert len(refused) == logins, statuses
        return json.loads(said.content[0].text)

    first = await call("/mcp", "whoami", 1)
    assert first == {"subject": "ada", "scope": "read", "token": False}, first
    # The token does, as long as it has the scope.
    assert await call("/mcp", "whoami", 0) == first
    # 403 insufficient_scope: the SDK asks for the scope that the challenge names. It registered for those of the first challenge
    # alone, and this provider then refuses others: so it registers again.
    kept.client = None
    path, tool = ("/mcp", "delete_file") if sys.argv[2:] == ["calls"] else ("/mcp/admin", "whoami")
    stronger = await call(path, tool, 1)
    assert stronger["subject"] == "ada" and "write" in stronger["scope"].split(), stronger
    print(kept.tokens.access_token)


asyncio.run(main())
