// @grpc/grpc-js and @grpc/proto-loader against the gate, with the service's own .proto.
'use strict';

const assert = require('node:assert/strict');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const { INTEROP_GATE: gate, INTEROP_CUTTING: cutting, INTEROP_EMAIL: email, INTEROP_PASSWORD: password } = process.env;
const profile = JSON.parse(process.env.INTEROP_PROFILE);

const options = { includeDirs: [process.argv[2]], keepCase: true, enums: String, defaults: false };
const loaded = grpc.loadPackageDefinition(loader.loadSync('user_api/v1/user_api.proto', options));
const { UserApiService } = loaded.user_api.v1;
const plain = grpc.credentials.createInsecure();
const api = new UserApiService(gate, plain);

const metadata = (token) => {
  const made = new grpc.Metadata();
  if (token) made.set('authorization', `Bearer ${token}`);
  return made;
};
const deadline = () => ({ deadline: Date.now() + 30_000 });
const call = (method, request, token, client = api) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata(token), deadline(), (error, value) => (error ? reject(error) : resolve(value)));
  });

// The upstream's messages are google.protobuf.StringValue: one field, a text of less than 128 bytes in these requests.
const write = (text) => Buffer.concat([Buffer.from([0x0a, Buffer.byteLength(text)]), Buffer.from(text)]);
const read = (bytes) => {
  let at = 1;
  while (bytes[at] & 0x80) at += 1;
  return bytes.subarray(at + 1).toString();
};
const generic = new grpc.Client(gate, plain);
const upstream = (text, token) =>
  new Promise((resolve, reject) => {
    generic.makeUnaryRequest('/test.Echo/Unary', write, read, text, metadata(token), deadline(), (error, value) =>
      error ? reject(error) : resolve(value),
    );
  });
const chat = (texts, token) =>
  new Promise((resolve) => {
    const stream = generic.makeBidiStreamRequest('/test.Echo/Chat', write, read, metadata(token), deadline());
    const answers = [];
    stream.on('data', (answer) => {
      answers.push(answer);
      // The next message only when the one before was answered.
      if (answers.length < texts.length) stream.write(texts[answers.length]);
      else stream.end();
    });
    stream.on('error', (error) => resolve({ answers, error }));
    stream.write(texts[0]);
  });

const refused = async (code, attempt) => {
  let error;
  try {
    await attempt();
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error, `not refused with ${grpc.status[code]}`);
  assert.equal(grpc.status[error.code], grpc.status[code], error.details);
};
// Their texts are secrets: a failure must not print them.
const same = (a, b) => a.token === b.token && a.refresh_token === b.refresh_token;
const { UNAUTHENTICATED, UNAVAILABLE, INVALID_ARGUMENT, DATA_LOSS } = grpc.status;

const main = async () => {
  console.log('login');
  await refused(UNAUTHENTICATED, () => call('AuthnWithPassword', { email, password: `${password}x` }));
  await refused(INVALID_ARGUMENT, () => call('AuthnWithPassword', { email }));
  let answer = await call('AuthnWithPassword', { email, password });
  const { metadata: told, ...user } = answer.user;
  const { metadata: expected, ...fields } = profile;
  assert.deepEqual({ ...user, external_ids: { ...user.external_ids } }, fields);
  assert.equal(told.fields.level.numberValue, expected.level);
  const first = answer.auth_token;
  assert.equal(first.token_type, 'Bearer');
  assert.ok(first.expires_in > 0 && first.expires_in <= 600, `${first.expires_in} s`);

  console.log('protected calls');
  assert.deepEqual((await call('GetMe', {}, first.token)).user, answer.user);
  await refused(UNAUTHENTICATED, () => call('GetMe', {}));
  await refused(UNAUTHENTICATED, () => call('GetMe', {}, first.token.slice(0, -2)));
  const lines = (await upstream('hello', first.token)).split('\n');
  assert.equal(lines[0], 'hello');
  for (const line of [`x-auth-subject: ${profile.uuid}`, 'x-auth-client: knox', 'te: trailers']) {
    assert.ok(lines.includes(line), line);
  }
  await refused(UNAUTHENTICATED, () => upstream('hello'));
  const talk = await chat(['a', 'b', 'c'], first.token);
  assert.deepEqual(talk.answers, ['re: a', 're: b', 're: c']);
  assert.equal(talk.error.code, DATA_LOSS);
  assert.equal(talk.error.details, '100 % über');
  assert.deepEqual(talk.error.metadata.get('x-tail'), ['7']);

  console.log('a refresh among ten other requests');
  const others = Array.from({ length: 10 }, () => upstream('hello', first.token));
  answer = await call('RefreshAccessToken', { refresh_token: first.refresh_token });
  const second = answer.auth_token;
  for (const other of await Promise.all(others)) assert.ok(other.startsWith('hello'));
  assert.ok(!same(first, second));
  assert.equal(answer.user.uuid, profile.uuid);
  await call('GetMe', {}, second.token);

  console.log('the example of the document');
  const documented = (request) =>
    new Promise((resolve) => {
      const service = api;
      service.refreshAccessToken(request, (err, value) => {
        const resp = JSON.stringify(err ? err : value);
        resolve(JSON.parse(resp));
      });
    });
  assert.equal((await documented({ refresh_token: 'REFRESH_TOKEN' })).code, UNAUTHENTICATED);
  const other = (await call('AuthnWithPassword', { email, password })).auth_token;
  const shown = await documented({ refresh_token: other.refresh_token });
  const names = 'uuid first_name last_name email role avatar phone dids external_ids metadata account'.split(' ');
  // An account is what this user has not.
  assert.deepEqual(Object.keys(shown.user), names.filter((name) => name !== 'account'));
  assert.deepEqual(Object.keys(shown.auth_token), ['token', 'token_type', 'expires_in', 'refresh_token']);

  console.log('a reply that is lost');
  const cut = new UserApiService(cutting, plain);
  const lost = { refresh_token: second.refresh_token };
  await refused(UNAVAILABLE, () => call('RefreshAccessToken', lost, undefined, cut));
  cut.close();
  const third = (await call('RefreshAccessToken', lost)).auth_token;
  assert.ok(same(third, (await call('RefreshAccessToken', lost)).auth_token));
  await call('GetMe', {}, third.token);

  console.log('a refresh token that comes back late');
  await refused(UNAUTHENTICATED, () => call('RefreshAccessToken', { refresh_token: first.refresh_token }));
  await refused(UNAUTHENTICATED, () => call('RefreshAccessToken', { refresh_token: third.refresh_token }));
  await refused(UNAUTHENTICATED, () => call('GetMe', {}, third.token));
  await refused(UNAUTHENTICATED, () => upstream('hello', third.token));

  console.log('revocation');
  const tokens = (await call('AuthnWithPassword', { email, password })).auth_token;
  await call('GetMe', {}, tokens.token);
  const body = new URLSearchParams({ client_id: 'knox', token: tokens.refresh_token });
  assert.equal((await fetch(`http://${gate}/connect/revocation`, { method: 'POST', body })).status, 200);
  await refused(UNAUTHENTICATED, () => call('GetMe', {}, tokens.token));
  await refused(UNAUTHENTICATED, () => upstream('hello', tokens.token));
  await refused(UNAUTHENTICATED, () => call('RefreshAccessToken', { refresh_token: tokens.refresh_token }));

  console.log('all is well');
  api.close();
  generic.close();
};

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
