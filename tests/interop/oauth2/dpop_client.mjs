// openid-client 6 with a key of its own (RFC 9449), told nothing but the issuer. oauth4webapi, as a resource server would
// use it, judges the proofs and the bound tokens.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import * as client from 'openid-client';

const { ISSUER, CLIENT_ID, CLIENT_SECRET, USER_NAME, PASSWORD, NONCE } = process.env;
const proof = CLIENT_SECRET ? client.ClientSecretBasic(CLIENT_SECRET) : client.None();
const config = await client.discovery(
  new URL(ISSUER),
  CLIENT_ID,
  // `iat` has whole seconds, and the gate has just started: one that began before it is refused.
  { [client.clockSkew]: 1 },
  proof,
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
);
assert.deepEqual(config.serverMetadata().dpop_signing_alg_values_supported, ['ES256', 'EdDSA', 'Ed25519', 'ES384', 'RS256', 'PS256']);

const url = new URL('/data?a=1', ISSUER);
for (const algorithm of ['ES256', 'Ed25519', 'RS256', 'PS256']) {
  const pair = await client.randomDPoPKeyPair(algorithm);
  const dpop = client.getDPoPHandle(config, pair);
  const grant = { username: USER_NAME, password: PASSWORD, scope: 'read write' };
  const first = await client.genericGrantRequest(config, 'password', grant, { DPoP: dpop });
  assert.equal(first.token_type, 'dpop', algorithm);
  const call = async (tokens, handle = dpop) => {
    const reply = await client.fetchProtectedResource(config, tokens.access_token, url, 'GET', null, null, { DPoP: handle });
    return reply.status;
  };
  assert.equal(await call(first), 200);
  // Calls at once, and a refresh among them.
  const others = Array.from({ length: 10 }, () => call(first));
  const second = await client.refreshTokenGrant(config, first.refresh_token, undefined, { DPoP: dpop });
  assert.deepEqual(await Promise.all(others), Array(10).fill(200));
  assert.equal(second.token_type, 'dpop');
  assert.equal(await call(second), 200);

  // The reply is lost after the gate has committed; the same again, with a new proof.
  await fetch(new URL('/test/lose-the-next-reply', ISSUER), { method: 'POST' });
  await assert.rejects(
    client.refreshTokenGrant(config, second.refresh_token, undefined, { DPoP: dpop }),
    (error) => !(error instanceof client.ResponseBodyError),
  );
  const third = await client.refreshTokenGrant(config, second.refresh_token, undefined, { DPoP: dpop });
  assert.equal(await call(third), 200);

  // Another judge: the token and a proof made here, as a resource server gets them.
  const server = { issuer: ISSUER, jwks_uri: config.serverMetadata().jwks_uri };
  let sent;
  const handle = oauth.DPoP({ client_id: CLIENT_ID }, pair);
  await oauth.protectedResourceRequest(third.access_token, 'GET', new URL(url), new Headers(), null, {
    DPoP: handle,
    [oauth.allowInsecureRequests]: true,
    [oauth.customFetch]: async (target, options) => {
      sent = new Request(target, { method: options.method, headers: options.headers });
      return new Response();
    },
  });
  const claims = await oauth.validateJwtAccessToken(server, sent, 'api', {
    requireDPoP: true,
    [oauth.allowInsecureRequests]: true,
    // Of the token and of the proof.
    signingAlgorithms: ['EdDSA', 'ES256', 'Ed25519', 'RS256', 'PS256'],
  });
  assert.equal(claims.client_id, CLIENT_ID);

  // Without the key the tokens are worth nothing.
  const thief = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  assert.equal((await fetch(url, { headers: { authorization: `Bearer ${third.access_token}` } })).status, 401);
  await assert.rejects(call(third, thief), (error) => error instanceof client.WWWAuthenticateChallengeError);
  await assert.rejects(
    client.refreshTokenGrant(config, third.refresh_token),
    (error) => error instanceof client.ResponseBodyError && error.error === 'invalid_dpop_proof',
  );
  // A revocation takes no proof.
  await client.tokenRevocation(config, third.refresh_token, { token_type_hint: 'refresh_token' });
  await assert.rejects(call(third), (error) => error instanceof client.WWWAuthenticateChallengeError);
}
if (NONCE) {
  const reply = await fetch(new URL('/connect/token', ISSUER), {
    method: 'POST',
    headers: { DPoP: 'x' },
    body: new URLSearchParams({ client_id: CLIENT_ID, grant_type: 'password' }),
  });
  assert.equal(reply.headers.get('dpop-nonce')?.length, 32);
}
