// What both scripts share. The SDK talks to GATE_PORT, where the test's proxy stands before the gate, and is the user of
// this run. A script ends with an error at the first thing that is not as it must be, says in which step that was, and
// prints no token.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

const { GATE_PORT, UPSTREAM_PORT, USER_NAME, USER_SUBJECT, PASSWORD } = process.env;
export const port = Number(GATE_PORT);
export const subject = USER_SUBJECT;
export const credentials = { username: USER_NAME, password: PASSWORD };
// The gate lets the old token pass for requests that are under way (`revoke_previous_after`).
export const tolerant = process.env.TOLERANT === '1';
// No event of the SDK is suppressed as a repetition.
export const options = { eventTimeout: 0, tokenExpiredInterval: 0 };

let at = 'the beginning';
export const step = (name) => { at = name; };

function red(error) {
  console.log(`red: ${at}`);
  // The SDK's own errors quote requests.
  const why = String(error?.stack ?? error).replaceAll(/eyJ[\w.-]+/g, '(token)').replaceAll(PASSWORD, '(password)');
  console.error(why);
  process.exit(1);
}

export function run(script) {
  process.on('uncaughtException', red);
  process.on('unhandledRejection', red);
  process.on('beforeExit', () => red(new Error('nothing is left to wait for')));
  setTimeout(() => red(new Error('nothing happens any more')), 60000).unref();
  script().then(() => {
    console.log('the SDK is content');
    process.exit(0);
  }, red);
}

export const same = (a, b, what) => assert.ok(a === b, what);

export const event = (kuzzle, name) => new Promise((resolve) => kuzzle.once(name, resolve));

export const failure = (promise, what) => promise.then(() => assert.fail(`not refused: ${what}`), (error) => error);

export async function refused(promise, status, id) {
  const error = await failure(promise, id);
  assert.deepEqual([error.status, error.id], [status, id]);
}

export async function until(what, holds) {
  for (let i = 0; i < 600; i += 1) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`never happened: ${what}`);
}

// Once connected, the SDK asks for the current user by itself, and takes the answer for its own state. A login that is
// answered at the same time would be lost.
export async function connected(kuzzle) {
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  await kuzzle.connect();
  await turn();
  await until('the SDK knows who it is', () => kuzzle.protocol.pendingRequests.size === 0);
  await turn();
}

// What the test does when it is asked: `lose` the reply to the next exchange, say how many are `lost`, `revoke` the user's
// sessions, `disable` the user, `crash` the gate and start it again, `stop` it.
export async function test(what) {
  const answer = await fetch(`http://127.0.0.1:${port}/test/${what}`);
  assert.equal(answer.status, 200);
  return answer.text();
}

// Asks the upstream, not through the gate.
const upstream = async (path) => (await fetch(`http://127.0.0.1:${UPSTREAM_PORT}${path}`)).text();

// One request by hand, with a token and a body if there are any.
export async function raw(method, path, token, content) {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(content && { 'content-type': 'application/json' }) };
  const sent = { method, headers, body: content && JSON.stringify(content) };
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, sent);
  const body = await answer.json();
  return { status: answer.status, id: body.error?.id, result: body.result };
}

// A call of a protected route, whose answer must be that to this call, by this run's user.
export async function hello(kuzzle, action = 'hello') {
  const nonce = randomUUID();
  const answer = await kuzzle.query({ controller: 'app', action, nonce });
  const { authorization, sawToken, ...rest } = answer.result ?? answer;
  assert.deepEqual([rest.nonce, rest.subject, authorization, sawToken], [nonce, subject, null, false]);
  return rest;
}

const five = (make) => Array.from({ length: 5 }, make);

// The token is exchanged with ten requests at the upstream that it had let through, and ten more around it. None of them
// is lost: the first ten succeed, the others succeed or get the error of a dead token.
export async function refreshWithRequestsInFlight(kuzzle, arrivesInOrder) {
  const old = kuzzle.jwt;
  const letThrough = [...five(() => hello(kuzzle, 'hold')), ...five(() => hello(kuzzle, 'hold'))];
  await until('ten requests are at the upstream', async () => (await upstream('/held')) === '10');
  const around = await Promise.allSettled([
    ...five(() => hello(kuzzle)),
    kuzzle.auth.refreshToken({ expiresIn: '2h' }),
    ...five(() => hello(kuzzle)),
  ]);
  const [exchange] = around.splice(5, 1);
  assert.equal(exchange.status, 'fulfilled', exchange.reason?.message);
  assert.equal(exchange.value.ttl, 7200000);
  around.forEach(({ status, reason }, i) => {
    const maySeeTheOldTokenDie = !tolerant && (i >= 5 || !arrivesInOrder);
    const isRight = status === 'fulfilled' || (maySeeTheOldTokenDie && reason.id === 'security.token.invalid');
    assert.ok(isRight, `request ${i}: ${reason?.message}`);
  });
  await upstream('/release');
  await Promise.all(letThrough);
  assert.ok(kuzzle.jwt === exchange.value.jwt && kuzzle.jwt !== old, 'the SDK has the new token');
  assert.ok(kuzzle.authenticated && (await kuzzle.auth.checkToken()).valid, 'the SDK is logged in');
  await hello(kuzzle);
}

// After an exchange the old token opens nothing.
export async function theOldTokenIsRefused(old) {
  const ask = async () => {
    const { status, id } = await raw('GET', '/hello', old);
    return [status, id].join(' ');
  };
  const dead = '401 security.token.invalid';
  if (tolerant) await until('the old token is refused', async () => (await ask()) === dead);
  else assert.equal(await ask(), dead);
}

// Logs out with a token, as another tab would.
export async function logoutElsewhere(token) {
  assert.equal((await raw('POST', '/_logout', token)).status, 200);
}

// An operator has ended the session: the token is dead in every use, and there is no other.
export async function nothingIsLeft(kuzzle, token) {
  same(kuzzle.jwt, null, 'the SDK has dropped its token');
  assert.equal(kuzzle.authenticated, false);
  for (const [method, path] of [['GET', '/hello'], ['GET', '/_me'], ['POST', '/_refreshToken'], ['POST', '/_logout']]) {
    const { status, id } = await raw(method, path, token);
    assert.deepEqual([path, status, id], [path, 401, 'security.token.invalid']);
  }
  assert.equal((await kuzzle.auth.checkToken(token)).valid, false);
  await refused(kuzzle.auth.refreshToken(), 401, 'security.rights.unauthorized');
}
