// Kuzzle's own SDK over WebSocket; see common.js.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import kuzzleSdk from 'kuzzle-sdk';
import Raw from 'ws';
import {
  connected, credentials, event, failure, hello, logoutElsewhere, nothingIsLeft, options, port, raw,
  refreshWithRequestsInFlight, refused, run, same, step, subject, test, theOldTokenIsRefused, until,
} from './common.js';

const { Kuzzle, WebSocket } = kuzzleSdk;

async function client(jwt) {
  // A delay so short that the SDK had not heard yet that a connection had failed would make it open two.
  const kuzzle = new Kuzzle(new WebSocket('127.0.0.1', { port, reconnectionDelay: 500 }), options);
  await connected(kuzzle);
  if (jwt) kuzzle.jwt = jwt;
  return kuzzle;
}

// The SDK comes back by itself, with the token that it has.
function comesBack(kuzzle) {
  return new Promise((resolve, reject) => {
    kuzzle.once('reconnected', resolve);
    kuzzle.once('reconnectionError', ({ error }) => reject(error));
  });
}

run(async () => {
  step('an answer finds its caller');
  const stranger = await client();
  assert.equal((await stranger.auth.checkToken('nonsense')).valid, false);
  await refused(hello(stranger), 401, 'security.rights.unauthorized');
  await refused(stranger.auth.refreshToken(), 401, 'security.rights.unauthorized');
  await refused(stranger.auth.login('local', { ...credentials, password: 'wrong' }), 401, 'plugin.strategy.missing_user');
  stranger.disconnect();

  // It sends a ping only when the last one was answered, and hangs up otherwise: looked at below.
  const idle = await client();
  const { ping } = idle.protocol;
  let pings = 0;
  idle.protocol.ping = () => { pings += 1; ping(); };
  idle.on('disconnected', () => { pings = NaN; });

  step('login');
  const kuzzle = await client();
  let lost = 0;
  kuzzle.on('disconnected', () => { lost += 1; });
  let drops = 0;
  kuzzle.on('tokenExpired', () => { drops += 1; });
  assert.equal(kuzzle.authenticated, false);
  const first = await kuzzle.auth.login('local', credentials, '1h');
  assert.equal(kuzzle.auth.authenticationToken.userId, subject);
  assert.equal((await kuzzle.auth.getCurrentUser())._id, subject);

  step('a protected route');
  const { connection } = await hello(kuzzle);

  step('the units of an exchange');
  const refreshed = await kuzzle.auth.refreshToken();
  assert.deepEqual(Object.keys(refreshed).sort(), ['_id', 'expiresAt', 'jwt', 'ttl']);
  assert.equal(refreshed._id, subject);
  assert.equal(refreshed.ttl, 3600000);
  assert.equal(Math.floor(refreshed.expiresAt / 1000), kuzzle.auth.authenticationToken.expiresAt);
  assert.ok(kuzzle.jwt === refreshed.jwt && refreshed.jwt !== first, 'the SDK took the new token');

  step('ten requests in flight');
  await refreshWithRequestsInFlight(kuzzle, true);
  assert.equal((await hello(kuzzle)).connection, connection, 'the connection to the upstream stays');

  step('the old token');
  const old = kuzzle.jwt;
  await kuzzle.auth.refreshToken();
  await theOldTokenIsRefused(old);
  assert.equal((await hello(kuzzle)).connection, connection);

  // A tab that missed the refresh gets the error of a dead token, and drops the token. Other tabs are unaffected.
  step('a token that comes again late');
  const stale = await client(first);
  const stalled = event(stale, 'tokenExpired');
  await refused(stale.auth.refreshToken(), 401, 'security.token.invalid');
  await stalled;
  assert.ok(stale.jwt === null && !stale.authenticated);
  stale.disconnect();
  await hello(kuzzle);
  assert.deepEqual([lost, drops], [0, 0]);

  // What the upstream says by itself comes through.
  step('a message that nobody asked for');
  const news = new Promise((resolve) => kuzzle.protocol.once('news', resolve));
  await hello(kuzzle, 'notify');
  assert.equal((await news).result.connection, connection);

  step('a lost reply');
  const before = kuzzle.jwt;
  await test('lose');
  const back = comesBack(kuzzle);
  const error = await failure(kuzzle.auth.refreshToken(), 'a reply that was lost');
  assert.ok(!error.id, `a broken connection and no refusal: ${error.id}`);
  assert.equal(await test('lost'), '1');
  await back;
  same(kuzzle.jwt, before, 'the SDK has the token that it had');
  const found = await kuzzle.auth.refreshToken();
  same((await raw('POST', '/_refreshToken', before)).result?.jwt, found.jwt, 'each time the same successor');
  await hello(kuzzle);
  assert.deepEqual([lost, drops], [1, 0]);

  // The connection gets an event, and its next request is refused.
  step('logout elsewhere');
  const gone = kuzzle.jwt;
  const expired = event(kuzzle, 'tokenExpired');
  await logoutElsewhere(gone);
  await expired;
  assert.ok(kuzzle.jwt === null && !kuzzle.authenticated);
  await refused(hello(kuzzle), 401, 'security.rights.unauthorized');
  kuzzle.jwt = gone;
  await refused(hello(kuzzle), 401, 'security.token.invalid');
  assert.equal(lost, 1);

  step('its own end');
  await kuzzle.auth.login('local', credentials, '2s');
  const ended = event(kuzzle, 'tokenExpired');
  await hello(kuzzle);
  await ended;

  // The SDK's own handling of a token that died: it logs in again.
  step('a new login by itself');
  await kuzzle.auth.login('local', credentials, '1h');
  kuzzle.authenticator = () => kuzzle.auth.login('local', credentials);
  const loggedIn = event(kuzzle, 'reAuthenticated');
  await logoutElsewhere(kuzzle.jwt);
  await loggedIn;
  await hello(kuzzle);
  kuzzle.authenticator = null;

  step('the upstream goes away');
  const afterwards = comesBack(kuzzle);
  failure(kuzzle.query({ controller: 'app', action: 'drop' }));
  await afterwards;
  assert.equal(lost, 2);
  await hello(kuzzle);

  step('pings');
  await until('pings are answered', () => pings > 1);
  idle.disconnect();

  step('the gate is killed and comes back');
  const survived = comesBack(kuzzle);
  await test('crash');
  await survived;
  await hello(kuzzle);
  await kuzzle.auth.refreshToken();
  await hello(kuzzle);
  assert.equal((await raw('GET', '/hello', gone)).status, 401);

  // By hand: pings, a room for every answer, the bound of a message.
  step('frames by hand');
  const socket = new Raw(`ws://127.0.0.1:${port}/`, ['null', 'other'], { perMessageDeflate: false });
  await once(socket, 'open');
  assert.equal(socket.protocol, 'null');
  const answer = async (text) => {
    socket.send(text);
    return String((await once(socket, 'message'))[0]);
  };
  assert.equal(await answer('{"p":1}'), '{"p":2}');
  socket.ping();
  await once(socket, 'pong');
  const check = JSON.parse(await answer('{"requestId":"R","controller":"auth","action":"checkToken","volatile":{"a":1}}'));
  assert.deepEqual([check.room, check.requestId, check.volatile], ['R', 'R', { a: 1 }]);
  const garbage = JSON.parse(await answer('nothing'));
  assert.ok(garbage.error.id && garbage.error.status === 400);
  assert.equal(JSON.parse(await answer('{"a":1,"a":2}')).status, 400);
  socket.send('x'.repeat(1100000));
  const [code] = await once(socket, 'close');
  assert.ok(code !== 1000, `closed with ${code}`);

  // An idle connection gets the event.
  step('revocation');
  const revoked = kuzzle.jwt;
  const told = event(kuzzle, 'tokenExpired');
  await test('revoke');
  await told;
  await nothingIsLeft(kuzzle, revoked);
  kuzzle.jwt = revoked;
  // What the SDK tells of this, and then asks, must not be taken for the next step's.
  const again = event(kuzzle, 'tokenExpired');
  await refused(hello(kuzzle), 401, 'security.token.invalid');
  await again;
  await until('the SDK has settled', () => kuzzle.protocol.pendingRequests.size === 0);

  step('a user who is shut out');
  await kuzzle.auth.login('local', credentials);
  const shut = event(kuzzle, 'tokenExpired');
  await test('disable');
  await shut;
  await refused(hello(kuzzle), 401, 'security.rights.unauthorized');
  await refused(kuzzle.auth.login('local', credentials), 401, 'plugin.strategy.missing_user');
  kuzzle.disconnect();

  // The connection is closed with a word that has the SDK come back.
  step('the gate stops');
  const open = new Raw(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false });
  await once(open, 'open');
  const closed = once(open, 'close');
  await test('stop');
  assert.equal((await closed)[0], 1001);
});
