// oidc-provider, certified by the OpenID Foundation, with its default rotation: a refresh token of a public client is good
// once, and one that comes again revokes the grant. Prints its URL. `/test/login` gives the refresh token of a new login;
// `/test/requests` tells how many token requests arrived.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(url, {
  clients: [
    {
      client_id: 'spa',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      application_type: 'native',
    },
  ],
  features: { revocation: { enabled: true } },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
});

let logins = 0;
async function login() {
  const [accountId, clientId, scope] = [`user-${++logins}`, 'spa', 'openid offline_access'];
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const client = await provider.Client.find(clientId);
  const authTime = Math.floor(Date.now() / 1000);
  const common = { accountId, client, grantId, scope, authTime, gty: 'authorization_code' };
  return new provider.RefreshToken({ ...common, rotations: 0, iiat: authTime, claims: {} }).save();
}

let requests = 0;
const callback = provider.callback();
server.on('request', async (request, response) => {
  if (request.url === '/test/login') return response.end(await login());
  if (request.url === '/test/requests') return response.end(String(requests));
  if (request.url === '/token') requests += 1;
  return callback(request, response);
});
console.log(url);
