# What the Python SDK asks of its application: a place for tokens, and a browser.
from urllib.parse import parse_qsl, urljoin, urlsplit

REDIRECT = "http://127.0.0.1/callback"
METADATA = dict(
    client_name="python",
    redirect_uris=[REDIRECT],
    grant_types=["authorization_code", "refresh_token"],
    response_types=["code"],
    token_endpoint_auth_method="none",
)


class Kept:
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
    """Follows the provider's redirects with its cookies until it comes back to the client. `web` makes an HTTP client."""

    def __init__(self, web):
        self.web, self.logins, self.came_back = web, 0, {}

    async def open(self, url):
        self.logins += 1
        async with self.web() as web:
            for _ in range(20):
                reply = await web.get(url)
                assert 300 <= reply.status_code < 400, f"{url}: {reply.status_code} {reply.text}"
                url = urljoin(url, reply.headers["location"])
                if url.startswith(REDIRECT):
                    self.came_back = dict(parse_qsl(urlsplit(url).query))
                    return
        raise AssertionError("the provider does not come back")
