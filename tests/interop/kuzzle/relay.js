// Kuzzle's own SDK in front of a Kuzzle server that keeps its users and its tokens: the gate relays `auth:refreshToken`. Over
// the transport given.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import kuzzleSdk from 'kuzzle-sdk';
import Raw from 'ws';
import { connected, credentials, event, failure, options, port, raw, refused, run, same, step, subject, test, until } from './common.js';

const { Http, Kuzzle, WebSocket } = kuzzleSdk;

const isHttp = process.argv[2] === 'http';
const transport = () => (isHttp ? new Http('127.0.0.1', { port }) : new WebSocket('127.0.0.1', { port, reconnectionDelay: 200 }));
const kuzzle = new Kuzzle(transport(), options);
const read = () => kuzzle.document.get('library', 'books', '1');
const server = async (what) => (await fetch(`http://127.0.0.1:${process.env.UPSTREAM_PORT}/test/${what}`)).text();
const exchanges = async () => JSON.parse(await server('seen')).refreshToken;
const dead = (token) => refused(raw('POST', '/_refreshToken', token).then(({ status, id }) => {
  if (status !== 200) throw Object.assign(new Error(id), { status, id });
}), 401, 'security.token.invalid');
// The server gives the same token twice in one second.
const aSecondLater = async () => {
  const then = Math.floor(Date.now() / 1000);
  await until('the next second', () => Math.floor(Date.now() / 1000) > then);
};

// The handler of docs/kuzzle.md.
let logins = 0;
kuzzle.on('reAuthenticated', () => kuzzle.auth.refreshToken());
kuzzle.on('tokenExpired', () => { logins += 1; });

run(async () => {
  step('the server answers a stranger');
  await connected(kuzzle);
  assert.equal((await kuzzle.auth.getStrategies())[0], 'local');
  await refused(read(), 401, 'security.rights.unauthorized');
  await refused(kuzzle.auth.login('local', { ...credentials, password: 'wrong' }), 401, 'plugin.strategy.missing_user');

  step('a login at the server');
  await kuzzle.auth.login('local', credentials, '2h');
  assert.ok(kuzzle.jwt.startsWith('kauth-'), 'its own token');
  assert.equal((await kuzzle.auth.getCurrentUser())._id, subject);
  assert.equal((await read())._id, '1');
  const told = [];
  const hear = (news) => told.push(news.result._source.text);
  const room = isHttp ? null : await kuzzle.realtime.subscribe('library', 'books', {}, hear);

  step('an exchange');
  const first = kuzzle.jwt;
  await aSecondLater();
  const before = await exchanges();
  const { jwt, ttl } = await kuzzle.auth.refreshToken({ expiresIn: '2h' });
  assert.equal(ttl, 7200000);
  assert.ok(jwt === kuzzle.jwt && jwt !== first, 'a new token');
  assert.deepEqual((await raw('GET', '/_me', first)).id, 'security.token.invalid');
  assert.equal((await kuzzle.auth.getCurrentUser())._id, subject);
  if (!isHttp) {
    await kuzzle.realtime.publish('library', 'books', { text: 'news' });
    await until('the subscription lives on', () => told.includes('news'));
    await kuzzle.realtime.unsubscribe(room);
  }

  step('many at once');
  const second = kuzzle.jwt;
  await aSecondLater();
  const all = await Promise.all(Array.from({ length: 5 }, () => raw('POST', '/_refreshToken?expiresIn=8000', second)));
  assert.deepEqual(all.map(({ status }) => status), [200, 200, 200, 200, 200]);
  assert.equal(new Set(all.map(({ result }) => result.jwt)).size, 1, 'one token for all of them');
  assert.equal(await exchanges(), before + 2);
  kuzzle.jwt = all[0].result.jwt;
  assert.equal((await read())._id, '1');

  step('a lost reply');
  const old = kuzzle.jwt;
  await aSecondLater();
  await test('lose');
  const back = isHttp ? null : event(kuzzle, 'reconnected');
  await failure(kuzzle.auth.refreshToken({ expiresIn: '2h' }), 'a reply that was lost');
  await back;
  same(kuzzle.jwt, old, 'the SDK has the token that it had');

  step('after `grace`, when the old token has expired');
  await until('it has expired', () => Date.now() > all[0].result.expiresAt + 1000);
  assert.equal((await kuzzle.auth.checkToken(old)).valid, true, 'a refresh would accept it');
  const reAuthenticated = event(kuzzle, 'reAuthenticated');
  await refused(read(), 401, 'security.token.invalid');
  await reAuthenticated;
  await until('the SDK has a new token', () => kuzzle.jwt !== old);
  assert.equal((await read())._id, '1');
  assert.equal(await exchanges(), before + 4, 'the kept token was exchanged');

  step('the old token after one use of the new one');
  await until('the use is noted', async () => (await raw('POST', '/_refreshToken', old)).status === 401);
  await dead(old);
  assert.equal((await kuzzle.auth.checkToken(old)).valid, false);
  assert.equal((await read())._id, '1');
  assert.equal(logins, 0);

  step('an API key');
  const key = await server('key');
  assert.equal((await raw('GET', '/_me', key)).result._id, subject);
  assert.deepEqual(await raw('POST', '/_refreshToken', key), { status: 401, id: 'security.token.refresh_forbidden', result: null });
  assert.equal((await raw('GET', '/_me', key)).result._id, subject);

  step('the server is away');
  await server('away');
  const { status, id } = await raw('POST', '/_refreshToken', kuzzle.jwt);
  assert.deepEqual([status, id], [503, 'api.process.overloaded']);
  await server('back');

  step('a logout with a token whose successor was lost');
  const { jwt: replaced } = (await raw('POST', '/_login/local', null, credentials)).result;
  await aSecondLater();
  await test('lose');
  await failure(raw('POST', '/_refreshToken', replaced), 'a reply that was lost');
  assert.equal((await kuzzle.auth.checkToken(replaced)).valid, true);
  assert.deepEqual((await raw('POST', '/_logout', replaced)).result, { acknowledged: true });
  assert.equal((await kuzzle.auth.checkToken(replaced)).valid, false);
  await dead(replaced);

  step('what logs and other paths must not give');
  const { status: refusal } = await raw('POST', `/_refreshToken?jwt=${kuzzle.jwt}`);
  assert.equal(refusal, 400, 'a token in the URL');
  const tunnel = new Raw(`ws://127.0.0.1:${process.env.DIRECT_PORT}/elsewhere`);
  await new Promise((resolve) => { tunnel.on('error', resolve); tunnel.on('open', () => assert.fail('a tunnel')); });

  step('the requests of the SDK for the JVM');
  await byQuery();
  await loginWithDeadToken(old);

  step('a cookie');
  await inACookie();

  step('an operator revokes all tokens at the gate');
  const revoked = kuzzle.jwt;
  await test('revoke-all');
  for (const [method, path] of [['GET', '/library/books/1'], ['GET', '/_me'], ['POST', '/_logout']]) {
    assert.equal((await raw(method, path, revoked)).id, 'security.token.invalid', path);
  }
  await dead(revoked);
  assert.equal((await raw('POST', '/_checkToken', null, { token: revoked })).result.valid, false);
  await aSecondLater();
  // The SDK has closed the connection of the revoked token.
  const again = new Kuzzle(transport(), options);
  await connected(again);
  await again.auth.login('local', credentials);
  assert.equal((await again.document.get('library', 'books', '1'))._id, '1');
});

// Everything by `_query`, with the token in the message and in the header, and with nulls.
async function byQuery() {
  let jwt = null;
  const call = async (controller, action, more) => {
    const message = { controller, action, requestId: randomUUID(), volatile: { sdkName: 'jvm@1' }, ...more };
    const headers = { 'content-type': 'application/json' };
    if (jwt) Object.assign(headers, { authorization: `Bearer ${jwt}` });
    const body = JSON.stringify(jwt ? { ...message, jwt } : message);
    const answer = await (await fetch(`http://127.0.0.1:${port}/_query`, { method: 'POST', headers, body })).json();
    assert.equal(answer.requestId, message.requestId);
    return answer;
  };
  const refresh = () => call('auth', 'refreshToken', { expiresIn: null });
  jwt = (await call('auth', 'login', { strategy: 'local', expiresIn: null, body: credentials })).result.jwt;
  const old = jwt;
  await aSecondLater();
  await test('lose');
  await failure(refresh(), 'a reply that was lost');
  await aSecondLater();
  await aSecondLater();
  assert.equal((await call('document', 'get', { index: 'library', collection: 'books', _id: '1' })).status, 401);
  const next = (await refresh()).result.jwt;
  assert.notEqual(next, old);
  jwt = next;
  assert.equal((await call('document', 'get', { index: 'library', collection: 'books', _id: '1' })).result._id, '1');
  jwt = old;
  await until('the use is noted', async () => (await refresh()).status === 401);
}

// Over a WebSocket, the SDK for the JVM sends the token that it has with a login, too.
async function loginWithDeadToken(jwt) {
  const socket = new Raw(`ws://127.0.0.1:${port}/`);
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
  const answered = new Promise((resolve) => socket.once('message', resolve));
  socket.send(JSON.stringify({ controller: 'auth', action: 'login', strategy: 'local', jwt, body: credentials, requestId: 'login' }));
  const { status, result } = JSON.parse(await answered);
  assert.equal(status, 200);
  assert.equal((await raw('GET', '/_me', result.jwt)).result._id, subject);
  socket.close();
}

// A browser keeps the token in a cookie that no script can read.
async function inACookie() {
  const ask = async (method, path, cookie, body) => {
    const headers = { origin: 'http://gate.test', 'content-type': 'application/json', ...(cookie && { cookie }) };
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body: body && JSON.stringify(body) });
    const set = answer.headers.get('set-cookie');
    return { status: answer.status, cookie: set?.split(';')[0], set, ...(await answer.json()) };
  };
  const many = Array.from({ length: 70 }, (_, i) => `p${i}`).join('&');
  const { username, password } = credentials;
  for (const path of ['', `${many}&`]) {
    const get = `/_login/local?${path}username=${username}&password=${password}&cookieAuth`;
    assert.equal((await ask('GET', get, null)).status, 400, 'a login by a link');
  }
  const old = 'authToken=kauth-eyJhbGciOiJIUzI1NiJ9.eyJfaWQiOiJhIn0.c2ln';
  assert.match((await ask('POST', '/_logout?cookieAuth', old)).set, /^authToken=null/, 'a dead cookie goes');
  const login = await ask('POST', '/_login/local?cookieAuth', old, credentials);
  assert.ok(login.cookie.startsWith('authToken=kauth-') && !login.result.jwt, 'the server sets its cookie');
  assert.equal((await ask('GET', '/_me', login.cookie)).result._id, subject);
  await aSecondLater();
  const next = await ask('POST', '/_refreshToken?cookieAuth', login.cookie);
  assert.equal(next.status, 200);
  assert.ok(next.cookie.startsWith('authToken=kauth-') && next.cookie !== login.cookie && !next.result.jwt, 'in the cookie alone');
  assert.match(next.set, /HttpOnly; SameSite=Strict/);
  assert.equal((await ask('GET', '/_me', next.cookie)).result._id, subject);
  assert.equal((await ask('POST', '/_checkToken?cookieAuth', next.cookie, {})).result.valid, true);
}
