// Kuzzle's own SDK loses the reply of `refreshToken`, and goes on after its token has expired, over the transport given. The
// test moves the clock of the gate.

import assert from 'node:assert/strict';
import kuzzleSdk from 'kuzzle-sdk';
import { connected, credentials, event, failure, options, port, raw, refused, run, same, step, test, until } from './common.js';

const { Http, Kuzzle, WebSocket } = kuzzleSdk;

const customRoutes = { document: { get: { verb: 'GET', url: '/:index/:collection/:_id' } } };
const transport = process.argv[2] === 'http'
  ? new Http('127.0.0.1', { port, customRoutes })
  : new WebSocket('127.0.0.1', { port, reconnectionDelay: 500 });
const kuzzle = new Kuzzle(transport, options);
const read = () => kuzzle.document.get('library', 'books', '1');
// The application behind the gate serves no WebSockets, so the gate itself answers there.
const use = process.argv[2] === 'http' ? read : () => kuzzle.auth.getCurrentUser();

// The handler of docs/kuzzle.md.
let logins = 0;
const showLogin = () => { logins += 1; };
kuzzle.on('reAuthenticated', () => kuzzle.auth.refreshToken()); // the gate still exchanges the old token
kuzzle.on('tokenExpired', showLogin);                           // the session has ended

run(async () => {
  step('login');
  await connected(kuzzle);
  await kuzzle.auth.login('local', credentials);
  await use();

  step('a lost reply');
  const old = kuzzle.jwt;
  await test('lose');
  const back = process.argv[2] === 'http' ? null : event(kuzzle, 'reconnected');
  await failure(kuzzle.auth.refreshToken(), 'a reply that was lost');
  await back;
  same(kuzzle.jwt, old, 'the SDK has the token that it had');

  step('an hour later');
  await test('hour');
  const reAuthenticated = event(kuzzle, 'reAuthenticated');
  await refused(read(), 401, 'security.token.invalid');
  await reAuthenticated;
  await until('the SDK has a new token', () => kuzzle.jwt !== old);
  assert.ok((await kuzzle.auth.checkToken()).valid, 'logged in');
  await use();

  step('the old token after one use of the new one, and `grace`');
  await test('minute');
  assert.deepEqual(await raw('POST', '/_refreshToken', old), { status: 401, id: 'security.token.invalid', result: null });
  assert.equal((await kuzzle.auth.checkToken(old)).valid, false);
  await use();
  assert.equal(logins, 0);

  step('the session has ended');
  await raw('POST', '/_logout', kuzzle.jwt);
  const ended = event(kuzzle, 'tokenExpired');
  await refused(read(), 401, 'security.token.invalid');
  await ended;
  assert.equal(logins, 1);
});
