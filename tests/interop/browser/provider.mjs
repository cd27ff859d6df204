// oidc-provider, certified by the OpenID Foundation, with its own pages for login and consent. Prints its URL.
// `/test/client?METADATA` registers a client, `/test/requests` tells how many token requests arrived.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(url, {
  features: {
    backchannelLogout: { enabled: true },
    pushedAuthorizationRequests: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  // Each refresh token is good once, and each access token for three seconds.
  rotateRefreshToken: true,
  issueRefreshToken: (_, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  ttl: { AccessToken: 3 },
  claims: { openid: ['sub', 'sid'], profile: ['groups'] },
  conformIdTokenClaims: false,
  // Its own refuses addresses of this machine.
  fetch: (target, { dispatcher, ...options }) => fetch(target, options),
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId, groups: ['boss'] }) }),
});

let requests = 0;
const callback = provider.callback();
server.on('request', async (request, response) => {
  const { pathname, search } = new URL(request.url, url);
  if (pathname === '/test/client') {
    const client = JSON.parse(decodeURIComponent(search.slice(1)));
    await provider.Client.adapter.upsert(client.client_id, client);
    return response.end();
  }
  if (pathname === '/test/requests') return response.end(String(requests));
  if (pathname === '/token') requests += 1;
  return callback(request, response);
});
console.log(url);
