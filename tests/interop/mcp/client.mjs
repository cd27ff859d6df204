// The client of the MCP SDK, told nothing but the URL of the server: it goes from a 401 to a token of the outside provider and
// through, and to another scope after a 403. The one argument is the gate's URL.
import assert from 'node:assert/strict';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { provider } from './user.mjs';

const gate = process.argv[2];
const { authProvider, state, browse } = provider();
/** Calls the tool at this path, after the logins that the gate asks for. */
async function whoami(path, logins) {
  const url = new URL(path, gate);
  for (let left = logins; ; left -= 1) {
    const transport = new StreamableHTTPClientTransport(url, { authProvider });
    const client = new Client({ name: 'sdk', version: '1.0.0' });
    try {
      state.asked = undefined;
      await client.connect(transport);
    } catch (error) {
      assert.ok(error instanceof UnauthorizedError, error);
      assert.ok(left > 0, 'another login than expected');
      await transport.finishAuth((await browse(state.asked)).get('code'));
      continue;
    }
    assert.equal(left, 0, 'no login was needed');
    const result = await client.callTool({ name: 'whoami' });
    await client.close();
    return JSON.parse(result.content[0].text);
  }
}

const first = await whoami('/mcp', 1);
assert.equal(state.asked, undefined);
assert.deepEqual(first, { subject: 'ada', scope: 'read', token: false });
assert.equal(state.registrations, 1);
// The token does, as long as it has the scope.
assert.deepEqual(await whoami('/mcp', 0), first);
// 403 insufficient_scope: the SDK asks for the scope that the challenge names. It registered for those of the first challenge
// alone, and this provider then refuses others: so it registers again.
state.kept.client = undefined;
const stronger = await whoami('/mcp/admin', 1);
assert.equal(stronger.subject, 'ada');
assert.ok(stronger.scope.split(' ').includes('write'), stronger.scope);
assert.equal(stronger.token, false);
console.log(state.token());
