// Kuzzle's own SDK over HTTP in front of an upstream that describes and serves actions of its own, as a Kuzzle server
// with a plugin does. As `node controllers.js upstream` the upstream, which prints its port; else the SDK, as http.js.

import assert from 'node:assert/strict';
import http from 'node:http';
import kuzzleSdk from 'kuzzle-sdk';

const route = (controller, action, verb, url) => ({ controller, action, http: [{ url, path: url, verb }] });

const described = {
  // What the gate answers itself stays the gate's, whatever stands here.
  auth: {
    login: route('auth', 'login', 'POST', '/elsewhere'),
    getMyRights: route('auth', 'getMyRights', 'GET', '/users/_me/_rights'),
  },
  document: { create: route('document', 'create', 'POST', '/:index/:collection/_create') },
  'my-plugin/greeter': { greet: route('my-plugin/greeter', 'greet', 'GET', '/_plugin/my-plugin/greet/:name') },
};

function serve(request, response) {
  let text = '';
  request.on('data', (data) => { text += data; });
  request.on('end', () => {
    const result = request.url === '/_publicApi'
      ? described
      : { url: request.url, subject: request.headers['x-auth-subject'] ?? null, body: text ? JSON.parse(text) : null };
    response.setHeader('content-type', 'application/json; charset=UTF-8');
    response.end(JSON.stringify({ status: 200, error: null, requestId: 'upstream', result }));
  });
}

async function live() {
  const { Kuzzle, Http } = kuzzleSdk;
  const kuzzle = new Kuzzle(new Http('127.0.0.1', { port: Number(process.env.GATE_PORT) }));
  await kuzzle.connect();
  await kuzzle.auth.login('local', { username: 'demo', password: process.env.GATE_PASSWORD });
  const me = await kuzzle.auth.getCurrentUser();

  const created = await kuzzle.query({
    controller: 'document', action: 'create', index: 'i', collection: 'c', body: { price: 1.5 },
  });
  assert.deepEqual(created.result, { url: '/i/c/_create', subject: me._id, body: { price: 1.5 } });
  await kuzzle.auth.refreshToken();
  const rights = await kuzzle.query({ controller: 'auth', action: 'getMyRights' });
  assert.equal(rights.result.subject, me._id);
  if (process.env.PUBLIC === '1') {
    const greeted = await kuzzle.query({ controller: 'my-plugin/greeter', action: 'greet', name: 'Ann' });
    assert.equal(greeted.result.url, '/_plugin/my-plugin/greet/Ann');
  }
  kuzzle.disconnect();
  console.log('the SDK is content');
}

if (process.argv[2] === 'upstream') {
  const server = http.createServer(serve);
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
} else {
  await live();
}
