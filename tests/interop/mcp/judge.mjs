// A provider (oidc-provider) that judges the assertions of the gate: its client authenticates by its key alone.
// Prints the provider's URL.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const { KEY } = process.env;
const { d, ...public_ } = JSON.parse(KEY);
const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'gate',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: public_.alg,
      jwks: { keys: [public_] },
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  enabledJWA: { clientAuthSigningAlgValues: ['EdDSA'] },
  features: { clientCredentials: { enabled: true }, introspection: { enabled: true }, devInteractions: { enabled: false } },
});
server.on('request', provider.callback());
console.log(issuer);
