// A server by Kuzzle's documents, over HTTP and WebSocket: it signs its tokens with HS256, and refuses a token that was
// refreshed or whose session has ended. Prints its port. The test asks it what it saw (`/test/seen`), can stop it from
// answering (`/test/away`, `/test/back`), and has it make an API key (`/test/key`).

import { createHmac, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const { USER_NAME, PASSWORD, USER_SUBJECT } = process.env;
const secret = randomBytes(32);
const HOUR = 3600000;
let away = false;
// Each token that is good, with its end in milliseconds (-1: none), its user, and the links of connections to it.
const tokens = new Map();
const seen = { refreshToken: 0, checkToken: 0, login: 0, refused: [] };
const subscriptions = new Set();

const part = (data) => Buffer.from(data).toString('base64url');
const ERRORS = {
  'security.token.invalid': [401, 117506049, 'Invalid token.'],
  'security.token.expired': [401, 117506054, 'Token expired'],
  'security.token.refresh_forbidden': [401, 117506056, 'API keys cannot be refreshed.'],
  'security.rights.unauthorized': [401, 117637121, 'Unauthorized: authentication required to execute the action.'],
  'plugin.strategy.missing_user': [401, 67305492, 'wrong username or password'],
  'network.http.url_not_found': [404, 50397191, 'API URL not found.'],
};
class KuzzleError extends Error {
  constructor(id) {
    const [status, code, message] = ERRORS[id];
    super(message);
    Object.assign(this, { id, status, code });
  }
}

function sign(prefix, claims) {
  const text = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify(claims))}`;
  return `${prefix}${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

function issue(expiresIn) {
  const ttl = { '2h': 2 * HOUR }[expiresIn] ?? Number(expiresIn ?? HOUR);
  const iat = Math.floor(Date.now() / 1000);
  const expiresAt = Date.now() + ttl;
  const jwt = sign('kauth-', { _id: USER_SUBJECT, iat, exp: Math.floor(expiresAt / 1000) });
  tokens.set(jwt, { expiresAt });
  return { _id: USER_SUBJECT, jwt, expiresAt, ttl };
}

// The SDK must get the same error for both kinds of dead tokens, so the server names only the first.
function check(jwt) {
  const token = tokens.get(jwt);
  if (!token || (token.expiresAt !== -1 && token.expiresAt <= Date.now())) throw new KuzzleError('security.token.invalid');
  return token;
}

const ACTIONS = {
  'server:publicApi': () => api,
  'server:now': () => ({ now: Date.now() }),
  'auth:getStrategies': () => ['local'],
  'auth:login': ({ body, expiresIn }) => {
    seen.login += 1;
    if (body?.username !== USER_NAME || body?.password !== PASSWORD) throw new KuzzleError('plugin.strategy.missing_user');
    return issue(expiresIn);
  },
  'auth:checkToken': ({ body, jwt, cookieAuth }) => {
    seen.checkToken += 1;
    const token = cookieAuth === true ? jwt : body?.token;
    if (!token) return { valid: true, expiresAt: -1, kuid: '-1' };
    try {
      return { valid: true, expiresAt: check(token).expiresAt, kuid: USER_SUBJECT };
    } catch (error) {
      return { valid: false, state: error.message };
    }
  },
};
const OF_USERS = {
  'auth:refreshToken': ({ jwt, expiresIn }, link) => {
    seen.refreshToken += 1;
    if (jwt.startsWith('kapikey-')) throw new KuzzleError('security.token.refresh_forbidden');
    const issued = issue(expiresIn);
    // A token of the same second is the same token.
    if (issued.jwt === jwt) return issued;
    tokens.delete(jwt);
    for (const subscription of subscriptions) {
      if (subscription.jwt === jwt) subscription.jwt = issued.jwt;
    }
    return issued;
  },
  'auth:logout': ({ jwt }) => {
    tokens.delete(jwt);
    return { acknowledged: true };
  },
  'auth:getCurrentUser': () => ({ _id: USER_SUBJECT, _source: { profileIds: ['default'] }, strategies: ['local'] }),
  'document:get': ({ _id }) => ({ _id, _source: {} }),
  'realtime:subscribe': ({ jwt }, link, id) => {
    subscriptions.add({ jwt, link });
    return { roomId: 'room', channel: 'channel', requestId: id };
  },
  'realtime:unsubscribe': ({ body }, link) => {
    for (const subscription of subscriptions) {
      if (subscription.link === link) subscriptions.delete(subscription);
    }
    return { roomId: body.roomId };
  },
  'realtime:publish': ({ body }) => {
    for (const { jwt, link } of subscriptions) {
      const text = JSON.stringify({ room: 'channel', type: 'document', scope: 'in', event: 'publish', result: { _source: body } });
      if (tokens.has(jwt) && link.readyState === 1) link.send(text);
    }
    return { published: true };
  },
};
const ROUTES = [
  ['server:publicApi', 'GET', '/_publicApi'], ['server:now', 'GET', '/_now'], ['auth:login', 'POST', '/_login/:strategy'],
  ['auth:checkToken', 'POST', '/_checkToken'], ['auth:refreshToken', 'POST', '/_refreshToken'],
  ['auth:logout', 'POST', '/_logout'], ['auth:getCurrentUser', 'GET', '/_me'], ['auth:getStrategies', 'GET', '/strategies'],
  ['document:get', 'GET', '/:index/:collection/:_id'],
];
const api = {};
for (const [name, verb, path] of ROUTES) {
  const [controller, action] = name.split(':');
  api[controller] ??= {};
  api[controller][action] = { controller, action, http: [{ url: path, path, verb }] };
}

function answer(call, link) {
  const { controller, action, requestId } = call;
  const name = `${controller}:${action}`;
  const envelope = { requestId, status: 200, error: null, controller, action, collection: null, index: null, volatile: {},
    deprecations: [], headers: {}, node: 'knode-test', result: null, ...(link && { room: requestId }) };
  try {
    if (call.jwt && name !== 'auth:checkToken') check(call.jwt);
    if (!call.jwt && name in OF_USERS) throw new KuzzleError('security.rights.unauthorized');
    const perform = ACTIONS[name] ?? OF_USERS[name];
    if (!perform) throw new KuzzleError('network.http.url_not_found');
    envelope.result = perform(call, link, requestId);
  } catch (error) {
    if (!(error instanceof KuzzleError)) throw error;
    seen.refused.push(`${name} ${error.id}`);
    const { status, code, id, message } = error;
    Object.assign(envelope, { status, error: { code, id, message, props: [], status } });
  }
  return envelope;
}

const bearer = ({ authorization, cookie }) => authorization?.replace(/^Bearer /i, '')
  ?? cookie?.split('; ').find((pair) => pair.startsWith('authToken='))?.slice('authToken='.length);

function called(request, text) {
  const { pathname, searchParams } = new URL(request.url, 'http://kuzzle');
  const args = Object.fromEntries(searchParams);
  const body = text ? JSON.parse(text) : undefined;
  const common = { requestId: request.headers['x-kuzzle-request-id'] ?? 'none', jwt: bearer(request.headers) };
  if (pathname === '/_query') {
    const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
    return { ...common, ...given };
  }
  for (const [name, verb, path] of ROUTES) {
    const [ours, theirs] = [path.split('/'), pathname.split('/')];
    const fits = ours.length === theirs.length && ours.every((one, i) => one.startsWith(':') || one === theirs[i]);
    if (fits && verb === request.method) {
      const [controller, action] = name.split(':');
      ours.forEach((one, i) => { if (one.startsWith(':')) args[one.slice(1)] = theirs[i]; });
      if ('cookieAuth' in args) args.cookieAuth = true;
      return { ...common, ...args, controller, action, body };
    }
  }
  return { ...common, controller: 'none', action: 'none' };
}

function test(what) {
  if (what === 'away' || what === 'back') away = what === 'away';
  if (what === 'key') {
    const jwt = sign('kapikey-', { _id: USER_SUBJECT, iat: Math.floor(Date.now() / 1000) });
    tokens.set(jwt, { expiresAt: -1 });
    return jwt;
  }
  return JSON.stringify(seen);
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    if (request.url.startsWith('/test/')) return response.end(test(request.url.slice('/test/'.length)));
    if (away) return request.socket.destroy();
    const said = answer(called(request, Buffer.concat(chunks).toString()));
    if (said.action === 'login' && request.url.includes('cookieAuth') && said.result) {
      response.setHeader('set-cookie', `authToken=${said.result.jwt}; Path=/; HttpOnly; SameSite=Strict`);
      delete said.result.jwt;
    }
    response.writeHead(said.status, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(said));
  });
});

new WebSocketServer({ server }).on('connection', (link, request) => {
  link.on('message', (data) => {
    if (away) return link.terminate();
    const call = JSON.parse(data);
    if (call.p === 1) return link.send('{"p":2}');
    return link.send(JSON.stringify(answer({ jwt: bearer({ cookie: request.headers.cookie }), ...call }, link)));
  });
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
