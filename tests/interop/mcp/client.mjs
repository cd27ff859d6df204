// The client of the MCP SDK, told nothing but the URL of the server: it goes from a 401 to a token of the outside provider and
// through, to a refresh, and to another scope after a 403: of another path, or of one call (second argument `calls`). The first
// argument is the gate's URL.
import assert from 'node:assert/strict';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { provider } from './user.mjs';

const gate = process.argv[2];
const { authProvider, state, browse } = provider();
let refusals = [];
const watched = async (input, init) => {
  const reply = await fetch(input, init);
  if (String(input).startsWith(gate) && [401, 403].includes(reply.status)) refusals.push(reply.status);
  return reply;
};

/** Calls the tool at this path, after the logins that the gate asks for. */
async function call(path, tool, logins) {
  refusals = [];
  for (let left = logins; ; left -= 1) {
    const transport = new StreamableHTTPClientTransport(new URL(path, gate), { authProvider, fetch: watched });
    const client = new Client({ name: 'sdk', version: '1.0.0' });
    try {
      state.asked = undefined;
      await client.connect(transport);
      const result = await client.callTool({ name: tool });
      assert.equal(left, 0, 'no login was needed');
      return JSON.parse(result.content[0].text);
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error;
      assert.ok(left > 0, 'another login than expected');
      await transport.finishAuth((await browse(state.asked)).get('code'));
    } finally {
      await client.close();
    }
  }
}

const first = await call('/mcp', 'whoami', 1);
assert.equal(state.asked, undefined);
assert.deepEqual(first, { subject: 'ada', scope: 'read', token: false });
assert.equal(state.registrations, 1);
// The token does, as long as it has the scope.
assert.deepEqual(await call('/mcp', 'whoami', 0), first);
assert.deepEqual(refusals, []);
// An access token that the gate refuses: the SDK refreshes it, and the user sees nothing.
state.kept.tokens = { ...state.kept.tokens, access_token: 'over' };
assert.deepEqual(await call('/mcp', 'whoami', 0), first);
assert.ok(state.token() !== 'over' && refusals.every((status) => status === 401), refusals);
// 403 insufficient_scope: the SDK asks for the scope that the challenge names. It registered for those of the first challenge
// alone, and this provider then refuses others: so it registers again.
state.kept.client = undefined;
const byCall = process.argv[3] === 'calls';
const [path, tool] = byCall ? ['/mcp', 'delete_file'] : ['/mcp/admin', 'whoami'];
const stronger = await call(path, tool, 1);
assert.equal(stronger.subject, 'ada');
assert.ok(stronger.scope.split(' ').includes('write'), stronger.scope);
assert.equal(stronger.token, false);
assert.deepEqual(refusals, [403], 'M21: one refusal, and the next attempt passes');
if (byCall) {
  // M11: a role is missing, which no scope mends: one request, and neither a refresh nor a login.
  const kept = state.token();
  await assert.rejects(call('/mcp', 'secret_file', 0), (error) => !(error instanceof UnauthorizedError));
  assert.deepEqual([refusals, state.asked, state.token()], [[403], undefined, kept]);
}
if (byCall) assert.equal((await call('/mcp', 'whoami', 0)).scope, stronger.scope, 'the wide token does for all calls');
console.log(state.token());
