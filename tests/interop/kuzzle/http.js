// Kuzzle's own SDK over HTTP, against the gate at GATE_PORT whose user `demo` has GATE_PASSWORD. Ends with an error at
// the first thing that is not as it must be, and prints no token.

import assert from 'node:assert/strict';
import kuzzleSdk from 'kuzzle-sdk';

const { Kuzzle, Http } = kuzzleSdk;
const port = Number(process.env.GATE_PORT);
const credentials = { username: 'demo', password: process.env.GATE_PASSWORD };

// Data routes are the application's: the SDK is told where they are.
const customRoutes = { app: { hello: { verb: 'GET', url: '/hello' } } };

async function client(jwt) {
  const kuzzle = new Kuzzle(new Http('127.0.0.1', { port, customRoutes }));
  kuzzle.on('networkError', (error) => assert.fail(`network error: ${error.message}`));
  await kuzzle.connect();
  if (jwt) kuzzle.jwt = jwt;
  return kuzzle;
}

const hello = (kuzzle) => kuzzle.query({ controller: 'app', action: 'hello' });

async function refused(promise, status, id) {
  const error = await promise.then(() => assert.fail(`not refused; expected ${id}`), (error) => error);
  assert.deepEqual([error.status, error.id], [status, id]);
}

const same = (a, b, what) => assert.ok(a === b, what);

const kuzzle = await client();
assert.equal(kuzzle.authenticated, false);
await refused(kuzzle.auth.login('local', { ...credentials, password: 'wrong' }), 401, 'plugin.strategy.missing_user');
await refused(kuzzle.auth.login('github', credentials), 400, 'security.credentials.unknown_strategy');
await refused(kuzzle.auth.login('local', credentials, 'abc'), 400, 'api.assert.invalid_argument');
await refused(hello(kuzzle), 401, 'security.rights.unauthorized');

// The document's own example.
const first = await kuzzle.auth.login('local', credentials);
assert.equal(typeof first, 'string');
assert.equal(kuzzle.authenticated, true);
const refreshed = await kuzzle.auth.refreshToken();
assert.deepEqual(Object.keys(refreshed).sort(), ['_id', 'expiresAt', 'jwt', 'ttl']);
assert.equal(refreshed.ttl, 3600000);
assert.ok(Math.abs(refreshed.expiresAt - Date.now() - refreshed.ttl) < 60000);
same(kuzzle.jwt, refreshed.jwt, 'the SDK took the new token');
assert.ok(refreshed.jwt !== first, 'a different token');

const me = await kuzzle.auth.getCurrentUser();
assert.equal(me._id, refreshed._id);
assert.deepEqual(await kuzzle.auth.getStrategies(), ['local']);
assert.equal((await kuzzle.auth.checkToken()).valid, true);

// Ten calls under way while the token is exchanged: the SDK sends each with the token of that moment, and none is lost
// that the gate saw before the exchange.
const settled = await Promise.allSettled([
  ...Array.from({ length: 10 }, () => hello(kuzzle)),
  kuzzle.auth.refreshToken({ expiresIn: '2h' }),
]);
const exchange = settled.pop();
assert.equal(exchange.status, 'fulfilled');
assert.equal(exchange.value.ttl, 7200000);
for (const { status, reason } of settled) {
  assert.ok(status === 'fulfilled' || reason.id === 'security.token.invalid', reason?.message);
}
await hello(kuzzle);

// Two tabs that share a token and refresh at once get the same one.
const other = await client(kuzzle.jwt);
const both = await Promise.all([kuzzle.auth.refreshToken(), other.auth.refreshToken()]);
same(both[0].jwt, both[1].jwt, 'both have the same successor');

// A tab that missed it all is told that its token is dead.
const stale = await client(first);
const told = new Promise((resolve) => stale.once('tokenExpired', resolve));
await refused(hello(stale), 401, 'security.token.invalid');
await told;

await kuzzle.auth.logout();
assert.equal(kuzzle.jwt, null);
await refused(hello(other), 401, 'security.token.invalid');

await kuzzle.auth.login('local', credentials, '1h');
await hello(kuzzle);
kuzzle.disconnect();
other.disconnect();
stale.disconnect();
console.log('the SDK is content');
