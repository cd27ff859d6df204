// The official MCP SDK gets an identity assertion of a stand-in for an identity provider, and exchanges it at the gate.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { discoverAuthorizationServerMetadata, exchangeJwtAuthGrant, requestJwtAuthorizationGrant } from '@modelcontextprotocol/client';
import { importJWK, SignJWT } from 'jose';

const { ISSUER, KEY, CLIENT_SECRET, IDP } = process.env;
const jwk = JSON.parse(KEY);
const key = await importJWK(jwk, jwk.alg);
// The answer of draft-ietf-oauth-identity-assertion-authz-grant, section 5.3.
const idp = createServer(async (request, response) => {
  const asked = new URLSearchParams(Buffer.concat(await request.toArray()).toString());
  assert.equal(asked.get('requested_token_type'), 'urn:ietf:params:oauth:token-type:id-jag');
  const claims = { client_id: 'wiki', scope: asked.get('scope'), resource: asked.get('resource') };
  const assertion = await new SignJWT(claims)
    .setProtectedHeader({ alg: 'EdDSA', kid: jwk.kid, typ: 'oauth-id-jag+jwt' })
    .setIssuer(IDP)
    .setSubject('ada')
    .setAudience(asked.get('audience'))
    .setJti(crypto.randomUUID())
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(key);
  const answer = { access_token: assertion, issued_token_type: asked.get('requested_token_type'), token_type: 'N_A', expires_in: 300 };
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
});
await new Promise((resolve) => idp.listen(0, '127.0.0.1', resolve));

const { token_endpoint, authorization_grant_profiles_supported } = await discoverAuthorizationServerMetadata(ISSUER);
assert.deepEqual(authorization_grant_profiles_supported, ['urn:ietf:params:oauth:grant-profile:id-jag']);
const resource = `${ISSUER}/mcp`;
const { jwtAuthGrant } = await requestJwtAuthorizationGrant({
  tokenEndpoint: `http://127.0.0.1:${idp.address().port}/token`,
  audience: ISSUER,
  resource,
  idToken: 'of the stand-in',
  clientId: 'sso',
  scope: 'read',
});
const exchange = () => exchangeJwtAuthGrant({ tokenEndpoint: token_endpoint, jwtAuthGrant, clientId: 'wiki', clientSecret: CLIENT_SECRET });
const [tokens, again] = [await exchange(), await exchange()];
assert.equal(tokens.scope, 'read');
assert.notEqual(tokens.access_token, again.access_token);
for (const { access_token } of [tokens, again]) {
  const answer = await fetch(resource, { headers: { authorization: `Bearer ${access_token}` } });
  assert.equal(answer.status, 200);
}
idp.close();
