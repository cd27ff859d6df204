// Kuzzle's own SDK over HTTP; see common.js.

import assert from 'node:assert/strict';
import kuzzleSdk from 'kuzzle-sdk';
import {
  connected, credentials, event, failure, hello, logoutElsewhere, nothingIsLeft, options, port, raw,
  refreshWithRequestsInFlight, refused, run, same, step, subject, test, theOldTokenIsRefused, until,
} from './common.js';

const { Http, Kuzzle } = kuzzleSdk;

// Data routes are the application's, so the SDK is configured with them.
const customRoutes = { app: { hello: { verb: 'GET', url: '/hello' }, hold: { verb: 'GET', url: '/hold' } } };

async function client(jwt) {
  const kuzzle = new Kuzzle(new Http('127.0.0.1', { port, customRoutes }), options);
  kuzzle.on('networkError', (error) => assert.fail(`network error: ${error.message}`));
  await connected(kuzzle);
  if (jwt) kuzzle.jwt = jwt;
  return kuzzle;
}

run(async () => {
  step('connect');
  const stranger = await client();
  assert.equal(stranger.authenticated, false);
  await refused(stranger.auth.login('local', { ...credentials, password: 'wrong' }), 401, 'plugin.strategy.missing_user');
  await refused(stranger.auth.login('github', credentials), 400, 'security.credentials.unknown_strategy');
  await refused(stranger.auth.login('local', credentials, 'abc'), 400, 'api.assert.invalid_argument');
  await refused(hello(stranger), 401, 'security.rights.unauthorized');

  step('login');
  const kuzzle = await client();
  const first = await kuzzle.auth.login('local', credentials);
  assert.equal(kuzzle.auth.authenticationToken.userId, subject);
  assert.equal(kuzzle.authenticated, true);
  assert.equal((await kuzzle.auth.getCurrentUser())._id, subject);
  assert.deepEqual(await kuzzle.auth.getStrategies(), ['local']);
  assert.equal((await kuzzle.auth.checkToken()).valid, true);

  step('a protected route');
  await hello(kuzzle);

  // The document's own example.
  step('the units of an exchange');
  const refreshed = await kuzzle.auth.refreshToken();
  assert.deepEqual(Object.keys(refreshed).sort(), ['_id', 'expiresAt', 'jwt', 'ttl']);
  assert.equal(refreshed._id, subject);
  assert.equal(refreshed.ttl, 3600000);
  assert.equal(Math.floor(refreshed.expiresAt / 1000), kuzzle.auth.authenticationToken.expiresAt);
  assert.ok(kuzzle.jwt === refreshed.jwt && refreshed.jwt !== first, 'the SDK took the new token');

  step('ten requests in flight');
  let drops = 0;
  kuzzle.on('tokenExpired', () => { drops += 1; });
  await refreshWithRequestsInFlight(kuzzle, false);
  assert.equal(drops, 0);

  step('the old token');
  const old = kuzzle.jwt;
  await kuzzle.auth.refreshToken();
  await theOldTokenIsRefused(old);
  await hello(kuzzle);

  // A tab that missed the refresh gets the error of a dead token, and drops the token. Other tabs are unaffected.
  step('a token that comes again late');
  const stale = await client(first);
  const stalled = event(stale, 'tokenExpired');
  await refused(stale.auth.refreshToken(), 401, 'security.token.invalid');
  await stalled;
  assert.ok(stale.jwt === null && !stale.authenticated);
  await hello(kuzzle);

  step('a lost reply');
  const before = kuzzle.jwt;
  await test('lose');
  const error = await failure(kuzzle.auth.refreshToken(), 'a reply that was lost');
  assert.ok(!error.id, `a broken connection and no refusal: ${error.id}`);
  assert.equal(await test('lost'), '1');
  same(kuzzle.jwt, before, 'the SDK has the token that it had');
  const found = await kuzzle.auth.refreshToken();
  same((await raw('POST', '/_refreshToken', before)).result?.jwt, found.jwt, 'each time the same successor');
  await hello(kuzzle);

  step('two tabs');
  const other = await client(kuzzle.jwt);
  const both = await Promise.all([kuzzle.auth.refreshToken(), other.auth.refreshToken()]);
  same(both[0].jwt, both[1].jwt, 'both have the same successor');
  await Promise.all([hello(kuzzle), hello(other)]);

  step('logout');
  assert.equal(drops, 0);
  const gone = kuzzle.jwt;
  await kuzzle.auth.logout();
  assert.equal(kuzzle.jwt, null);
  await refused(hello(other), 401, 'security.token.invalid');
  await refused(hello(kuzzle), 401, 'security.rights.unauthorized');

  // The SDK's own handling of a token that died: it logs in again.
  step('a new login by itself');
  await kuzzle.auth.login('local', credentials, '1h');
  kuzzle.authenticator = () => kuzzle.auth.login('local', credentials);
  await logoutElsewhere(kuzzle.jwt);
  const loggedIn = event(kuzzle, 'reAuthenticated');
  await refused(hello(kuzzle), 401, 'security.token.invalid');
  await loggedIn;
  await hello(kuzzle);
  assert.equal(drops, 0);
  kuzzle.authenticator = null;

  step('the gate is killed and comes back');
  await test('crash');
  await hello(kuzzle);
  await kuzzle.auth.refreshToken();
  await hello(kuzzle);
  assert.equal((await raw('GET', '/hello', gone)).status, 401);

  step('revocation');
  const revoked = kuzzle.jwt;
  const told = event(kuzzle, 'tokenExpired');
  await test('revoke');
  await refused(hello(kuzzle), 401, 'security.token.invalid');
  await told;
  await nothingIsLeft(kuzzle, revoked);

  step('a user who is shut out');
  await kuzzle.auth.login('local', credentials);
  const shut = kuzzle.jwt;
  await test('disable');
  await until('the user is shut out', async () => (await raw('GET', '/hello', shut)).status === 401);
  await refused(hello(kuzzle), 401, 'security.token.invalid');
  await refused(kuzzle.auth.login('local', credentials), 401, 'plugin.strategy.missing_user');
});
