// The client of the MCP SDK, told nothing but the URL of the server: it goes from a 401 to a token of the outside provider and
// through, and to another scope after a 403. The one argument is the gate's URL.
import assert from 'node:assert/strict';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const gate = process.argv[2];
const redirectUrl = 'http://127.0.0.1/callback';
let asked;
let registrations = 0;
const kept = {};
const authProvider = {
  redirectUrl,
  clientMetadata: {
    client_name: 'sdk',
    redirect_uris: [redirectUrl],
    grant_types: ['authorization_code'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
    application_type: 'native',
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => {
    if (!kept.client) registrations += 1;
    kept.client = client;
  },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => (kept.tokens = tokens),
  redirectToAuthorization: (url) => (asked = url),
  saveCodeVerifier: (verifier) => (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
};

/** A browser: follows redirects with its cookies until it comes back to the client. Gives the code. */
async function browse(url) {
  const cookies = new Map();
  for (let at = new URL(url), hops = 0; hops < 20; hops += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const reply = await fetch(at, { redirect: 'manual', headers: { cookie } });
    for (const set of reply.headers.getSetCookie()) {
      const [name, value] = set.split(';')[0].split('=');
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    assert.ok(reply.status >= 300 && reply.status < 400, `${at}: ${reply.status} ${await reply.text()}`);
    at = new URL(reply.headers.get('location'), at);
    if (at.href.startsWith(redirectUrl)) {
      assert.ok(at.searchParams.get('code'), at.href);
      return at.searchParams.get('code');
    }
  }
  throw new Error('the provider does not come back');
}

/** Calls the tool at this path, after the logins that the gate asks for. */
async function whoami(path, logins) {
  const url = new URL(path, gate);
  for (let left = logins; ; left -= 1) {
    const transport = new StreamableHTTPClientTransport(url, { authProvider });
    const client = new Client({ name: 'sdk', version: '1.0.0' });
    try {
      asked = undefined;
      await client.connect(transport);
    } catch (error) {
      assert.ok(error instanceof UnauthorizedError, error);
      assert.ok(left > 0, 'another login than expected');
      await transport.finishAuth(await browse(asked));
      continue;
    }
    assert.equal(left, 0, 'no login was needed');
    const result = await client.callTool({ name: 'whoami' });
    await client.close();
    return JSON.parse(result.content[0].text);
  }
}

const first = await whoami('/mcp', 1);
assert.equal(asked, undefined);
assert.deepEqual(first, { subject: 'ada', scope: 'read', token: false });
assert.equal(registrations, 1);
// The token does, as long as it has the scope.
assert.deepEqual(await whoami('/mcp', 0), first);
// 403 insufficient_scope: the SDK asks for the scope that the challenge names. It registered for those of the first challenge
// alone, and this provider then refuses others: so it registers again.
kept.client = undefined;
const stronger = await whoami('/mcp/admin', 1);
assert.equal(stronger.subject, 'ada');
assert.ok(stronger.scope.split(' ').includes('write'), stronger.scope);
assert.equal(stronger.token, false);
console.log(kept.tokens.access_token);
