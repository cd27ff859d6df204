// A service behind rotogate, in Express 5: each caller has orders of its own. docs/start.md puts the gate in front of it.
//
//     npm ci && node server.mjs
import express from 'express';

const app = express();
// Only the gate calls this port, and the first entry of its X-Forwarded-For is the client: `request.ip`.
app.set('trust proxy', true);
app.use(express.json());

// Identity headers are percent-encoded where they are not visible ASCII.
const claim = (request, name) => {
    const value = request.get(`x-auth-${name}`);
    return value === undefined ? null : decodeURIComponent(value);
};

const caller = (request) => ({
    subject: claim(request, 'subject'),
    account: claim(request, 'account'),
    client: claim(request, 'client'),
    scopes: claim(request, 'scope')?.split(' ').filter(Boolean) ?? [],
    roles: request.get('x-auth-roles')?.split(',').map(decodeURIComponent) ?? [],
    session: claim(request, 'session'),
    issuer: claim(request, 'issuer'),
    address: request.ip,
    request_id: request.get('x-request-id'),
});

app.use((request, response, next) => {
    request.caller = caller(request);
    if (request.caller.subject !== null) return next();
    // The gate sends no such request: its route has `auth = "none"`, or another program calls this port.
    response.status(403).json({ error: 'no caller: call the gate, not this port' });
});

const orders = new Map();

app.get('/whoami', (request, response) => response.json(request.caller));

app.get('/orders', (request, response) => response.json(orders.get(request.caller.subject) ?? []));

app.post('/orders', (request, response) => {
    const { subject } = request.caller;
    orders.set(subject, [...(orders.get(subject) ?? []), { item: String(request.body?.item) }]);
    response.status(201).json(orders.get(subject));
});

const port = process.env.PORT ?? 3000;
// On loopback: other machines reach the gate alone.
app.listen(port, '127.0.0.1', () => console.log(`listens on http://127.0.0.1:${port}`));
