// openid-client 6 (on oauth4webapi 3) authenticates by assertions at each endpoint, told nothing but the issuer.
import assert from 'node:assert/strict';
import { importJWK } from 'jose';
import * as client from 'openid-client';

const { ISSUER, KEY } = process.env;
const jwk = JSON.parse(KEY);
const config = await client.discovery(
  new URL(ISSUER),
  'orders',
  undefined,
  client.PrivateKeyJwt({ key: await importJWK(jwk, jwk.alg), kid: jwk.kid }),
  { algorithm: 'oauth2', execute: [client.allowInsecureRequests] },
);
assert.ok(config.serverMetadata().token_endpoint_auth_methods_supported.includes('private_key_jwt'));
const tokens = await client.clientCredentialsGrant(config, { scope: 'read' });
assert.equal(tokens.scope, 'read');
assert.equal((await client.tokenIntrospection(config, tokens.access_token)).client_id, 'orders');
await client.tokenRevocation(config, tokens.access_token);
assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false);
// An assertion that was used, and one with another key.
const other = { ...jwk, ...(await (await import('jose')).exportJWK((await (await import('jose')).generateKeyPair('EdDSA', { extractable: true })).privateKey)) };
const impostor = await client.discovery(new URL(ISSUER), 'orders', undefined, client.PrivateKeyJwt({ key: await importJWK(other, 'EdDSA'), kid: jwk.kid }), {
  algorithm: 'oauth2',
  execute: [client.allowInsecureRequests],
});
await assert.rejects(client.clientCredentialsGrant(impostor), (error) => error.error === 'invalid_client');
