// A user of the SDK's clients, with a browser that follows the provider's redirects.
import assert from 'node:assert/strict';

/** An OAuth provider for the SDK's transports, what it was asked for, and the browser. */
export function provider() {
  const redirectUrl = 'http://127.0.0.1/callback';
  const state = { registrations: 0, kept: {} };
  const { kept } = state;
  const authProvider = {
    redirectUrl,
    clientMetadata: {
      client_name: 'sdk',
      redirect_uris: [redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    },
    clientInformation: () => kept.client,
    saveClientInformation: (client) => {
      if (!kept.client) state.registrations += 1;
      kept.client = client;
    },
    tokens: () => kept.tokens,
    saveTokens: (tokens) => (kept.tokens = tokens),
    // The provider refuses the refresh token: it was for a client that is forgotten.
    invalidateCredentials: () => (kept.tokens = undefined),
    redirectToAuthorization: (url) => (state.asked = url),
    saveCodeVerifier: (verifier) => (kept.verifier = verifier),
    codeVerifier: () => kept.verifier,
  };
  state.token = () => kept.tokens.access_token;
  state.scopes = () => JSON.parse(Buffer.from(state.token().split('.')[1], 'base64url')).scope.split(' ');

  /** A browser: follows redirects with its cookies until it comes back to the client. Gives what it came back with. */
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
        return at.searchParams;
      }
    }
    throw new Error('the provider does not come back');
  }

  return { authProvider, state, browse };
}
