// Kuzzle's own SDK over WebSocket, against the gate at GATE_PORT with upstream.js behind it. As http.js.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import kuzzleSdk from 'kuzzle-sdk';
import Raw from 'ws';

const { Http, Kuzzle, WebSocket } = kuzzleSdk;
const port = Number(process.env.GATE_PORT);
const credentials = { username: 'demo', password: process.env.GATE_PASSWORD };

async function client() {
  const kuzzle = new Kuzzle(new WebSocket('127.0.0.1', { port, reconnectionDelay: 50 }));
  await kuzzle.connect();
  return kuzzle;
}

const hello = (kuzzle) => kuzzle.query({ controller: 'app', action: 'hello' }).then(({ result }) => result);
const event = (kuzzle, name) => new Promise((resolve) => kuzzle.once(name, resolve));

async function refused(promise, status, id) {
  const error = await promise.then(() => assert.fail(`not refused; expected ${id}`), (error) => error);
  assert.deepEqual([error.status, error.id], [status, id]);
}

const kuzzle = await client();
let lost = 0;
kuzzle.on('disconnected', () => { lost += 1; });
assert.equal((await kuzzle.auth.checkToken('nonsense')).valid, false);
await refused(hello(kuzzle), 401, 'security.rights.unauthorized');
await refused(kuzzle.auth.refreshToken(), 401, 'security.rights.unauthorized');
await refused(kuzzle.auth.login('local', { ...credentials, password: 'wrong' }), 401, 'plugin.strategy.missing_user');

const first = await kuzzle.auth.login('local', credentials, '1h');
const before = await hello(kuzzle);
const me = await kuzzle.auth.getCurrentUser();
assert.deepEqual(before, { connection: before.connection, subject: me._id, authorization: null, sawToken: false });

// Ten calls under way while the token is exchanged; the upstream's connection stays.
const settled = await Promise.allSettled([
  ...Array.from({ length: 10 }, () => hello(kuzzle)),
  kuzzle.auth.refreshToken({ expiresIn: '2h' }),
]);
assert.deepEqual(settled.map(({ status }) => status), Array(11).fill('fulfilled'));
assert.equal(settled[10].value.ttl, 7200000);
assert.ok(kuzzle.jwt === settled[10].value.jwt && kuzzle.jwt !== first, 'the SDK took the new token');
assert.equal((await hello(kuzzle)).connection, before.connection);

// What the upstream says by itself comes through.
const news = new Promise((resolve) => kuzzle.protocol.once('news', resolve));
await kuzzle.query({ controller: 'app', action: 'notify' });
assert.equal((await news).result.connection, before.connection);

// The SDK pings every two seconds, and hangs up on who does not answer.
await new Promise((resolve) => setTimeout(resolve, 5000));
assert.equal(lost, 0);
await hello(kuzzle);

// The token is revoked elsewhere: the connection is told, and its next request is refused.
const elsewhere = new Kuzzle(new Http('127.0.0.1', { port }));
await elsewhere.connect();
elsewhere.jwt = kuzzle.jwt;
const expired = event(kuzzle, 'tokenExpired');
await elsewhere.auth.logout();
await expired;
await refused(hello(kuzzle), 401, 'security.token.invalid').catch(() => refused(hello(kuzzle), 401, 'security.rights.unauthorized'));
assert.equal(lost, 0);

// The same by its own end.
await kuzzle.auth.login('local', credentials, '2s');
await hello(kuzzle);
await event(kuzzle, 'tokenExpired');

// The upstream goes away: the SDK comes back by itself.
await kuzzle.auth.login('local', credentials, '1h');
const reconnected = event(kuzzle, 'reconnected');
kuzzle.query({ controller: 'app', action: 'drop' }).catch(() => {});
await reconnected;
assert.equal(lost, 1);
assert.equal((await hello(kuzzle)).subject, me._id);
await kuzzle.auth.logout();
await refused(hello(kuzzle), 401, 'security.rights.unauthorized');
kuzzle.disconnect();

// By hand: pings in text, a room for every answer, the bound of a message.
const raw = new Raw(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false });
await once(raw, 'open');
const answer = async (text) => {
  raw.send(text);
  return String((await once(raw, 'message'))[0]);
};
assert.equal(await answer('{"p":1}'), '{"p":2}');
raw.ping();
await once(raw, 'pong');
const check = JSON.parse(await answer('{"requestId":"R","controller":"auth","action":"checkToken","volatile":{"a":1}}'));
assert.deepEqual([check.room, check.requestId, check.volatile], ['R', 'R', { a: 1 }]);
const garbage = JSON.parse(await answer('nothing'));
assert.ok(garbage.error.id && garbage.error.status === 400);
assert.equal(JSON.parse(await answer('{"a":1,"a":2}')).status, 400);
raw.send('x'.repeat(1100000));
const [code] = await once(raw, 'close');
assert.ok(code !== 1000, `closed with ${code}`);

// The gate stops: the connection is closed with a word that has the SDK come back.
const last = new Raw(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false });
await once(last, 'open');
process.kill(Number(process.env.GATE_PID), 'SIGTERM');
assert.equal((await once(last, 'close'))[0], 1001);
console.log('the SDK is content');
process.exit(0);
