// openid-client 6 (on oauth4webapi 3), told nothing but the issuer.
import assert from 'node:assert/strict';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import * as client from 'openid-client';

const { ISSUER, CLIENT_ID, CLIENT_SECRET, USER_NAME, PASSWORD } = process.env;
const server = new URL(ISSUER);
const proof = (secret) => (secret ? client.ClientSecretBasic(secret) : client.None());
const discover = (algorithm, secret = CLIENT_SECRET) =>
  client.discovery(server, CLIENT_ID, undefined, proof(secret), { algorithm, execute: [client.allowInsecureRequests] });
await discover('oidc');
const config = await discover('oauth2');
assert.equal(config.serverMetadata().issuer, ISSUER);

const url = new URL('/data', ISSUER);
const call = async (tokens) => {
  const headers = { authorization: `Bearer ${tokens.access_token}` };
  return (await fetch(url, { headers })).status;
};
const login = () =>
  client.genericGrantRequest(config, 'password', { username: USER_NAME, password: PASSWORD, scope: 'read write' });
const refresh = (tokens) => client.refreshTokenGrant(config, tokens.refresh_token);
const refused = (tokens) =>
  assert.rejects(refresh(tokens), (error) => {
    assert.ok(error instanceof client.ResponseBodyError, error.name);
    assert.equal(error.error, 'invalid_grant');
    assert.equal(error.status, 400);
    return true;
  });

if (CLIENT_SECRET) {
  // A confidential client that cannot prove who it is is refused, with the challenge of RFC 6749 §5.2.
  const impostor = await discover('oauth2', 'not the secret');
  const grant = { username: USER_NAME, password: PASSWORD, scope: 'read write' };
  await assert.rejects(client.genericGrantRequest(impostor, 'password', grant), (error) => {
    assert.ok(error instanceof client.WWWAuthenticateChallengeError, error.name);
    assert.equal(error.status, 401);
    return true;
  });
}
const first = await login();
assert.equal(first.expires_in, 600);
assert.equal(first.token_type, 'bearer');
assert.equal(first.scope, 'read write');
const keys = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
const { payload } = await jwtVerify(first.access_token, keys, { issuer: ISSUER, audience: 'api', typ: 'at+jwt' });
assert.equal(payload.client_id, CLIENT_ID);
assert.equal(await call(first), 200);

// A refresh in the middle of other requests.
const others = Array.from({ length: 10 }, () => call(first));
const second = await refresh(first);
assert.deepEqual(await Promise.all(others), Array(10).fill(200));
assert.notEqual(second.access_token, first.access_token);
assert.notEqual(second.refresh_token, first.refresh_token);
assert.equal(await call(second), 200);

// The reply is lost after the gate has committed; the same again.
await fetch(new URL('/test/lose-the-next-reply', ISSUER), { method: 'POST' });
await assert.rejects(refresh(second), (error) => !(error instanceof client.ResponseBodyError));
const third = await refresh(second);
assert.notEqual(third.access_token, second.access_token);
assert.equal(await call(third), 200);
const fourth = await refresh(third);
assert.equal(await call(fourth), 200);

// The old credential is refused, and whoever presents it has given the copy away.
await refused(second);
assert.equal(await call(fourth), 401);

const again = await refresh(await login());
await client.tokenRevocation(config, again.refresh_token, { token_type_hint: 'refresh_token' });
await refused(again);
assert.equal(await call(again), 401);
