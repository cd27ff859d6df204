"""A service behind rotogate, in FastAPI: each caller has orders of its own. docs/start.md puts the gate in front of it.

    pip install -r requirements.txt && uvicorn app:app --host 127.0.0.1 --port 3000 --forwarded-allow-ips '*'

On loopback, other machines reach the gate alone. Only the gate calls this port, and the first entry of its X-Forwarded-For is the
client: `request.client`.
"""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel

app = FastAPI()


class Caller(BaseModel):
    subject: str
    account: str | None
    client: str | None
    scopes: list[str]
    roles: list[str]
    session: str | None
    issuer: str | None
    address: str
    request_id: str | None


def caller(request: Request) -> Caller:
    # Identity headers are percent-encoded where they are not visible ASCII.
    def claim(name):
        value = request.headers.get(f"x-auth-{name}")
        return None if value is None else unquote(value)

    if (subject := claim("subject")) is None:
        # The gate sends no such request: its route has `auth = "none"`, or another program calls this port.
        raise HTTPException(403, "no caller: call the gate, not this port")
    return Caller(
        subject=subject,
        account=claim("account"),
        client=claim("client"),
        scopes=(claim("scope") or "").split(),
        roles=[unquote(role) for role in request.headers.get("x-auth-roles", "").split(",") if role],
        session=claim("session"),
        issuer=claim("issuer"),
        address=request.client.host,
        request_id=request.headers.get("x-request-id"),
    )


Known = Annotated[Caller, Depends(caller)]


class Order(BaseModel):
    item: str


orders: dict[str, list[Order]] = {}


@app.get("/whoami")
def whoami(caller: Known) -> Caller:
    return caller


@app.get("/orders")
def listed(caller: Known) -> list[Order]:
    return orders.get(caller.subject, [])


@app.post("/orders", status_code=201)
def ordered(caller: Known, order: Order) -> list[Order]:
    orders.setdefault(caller.subject, []).append(order)
    return orders[caller.subject]
