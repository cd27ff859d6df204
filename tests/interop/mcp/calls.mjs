// The second client of the MCP SDK, which speaks version 2026-07-28: a call that the rules permit, one that needs another
// scope, which the SDK asks its user for, and an older client that the gate tells the version. The argument is the gate's URL.
import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { provider } from './user.mjs';

const url = new URL('/mcp', process.argv[2]);
const { authProvider, state, browse } = provider();

async function connected(versionNegotiation) {
  for (let logins = 0; ; logins += 1) {
    const transport = new StreamableHTTPClientTransport(url, { authProvider });
    const client = new Client({ name: 'calls', version: '1.0.0' }, { versionNegotiation });
    try {
      await client.connect(transport);
      return { client, transport, logins };
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || logins > 1) throw error;
      await transport.finishAuth(await browse(state.asked));
    }
  }
}

const first = await connected({ mode: { pin: '2026-07-28' } });
assert.equal(first.logins, 1, 'one login');
const text = async ({ client }, name) => (await client.callTool({ name })).content[0].text;
assert.equal(await text(first, 'read_file'), 'read');

// An access token that the gate refuses: the SDK refreshes it, and the user sees nothing.
state.asked = undefined;
state.kept.tokens = { ...state.kept.tokens, access_token: 'over' };
assert.equal(await text(first, 'read_file'), 'read');
assert.ok(state.token() !== 'over' && state.asked === undefined, 'a refresh');

// M21: the call that needs another scope asks for it, and passes at the first attempt after it.
// It registered for the scopes of the first challenge alone, and this provider then refuses others: so it registers again.
state.kept.client = undefined;
let deleted;
try {
  deleted = await text(first, 'delete_file');
} catch (error) {
  assert.ok(error instanceof UnauthorizedError, error);
  await first.transport.finishAuth(await browse(state.asked));
  deleted = await text(first, 'delete_file');
}
assert.equal(deleted, 'deleted');
assert.ok(state.scopes().includes('write') && state.scopes().includes('read'), state.scopes());
assert.equal(await text(first, 'read_file'), 'read', 'the wide scope has the narrow one');

// M21: a client of both eras finds the version by itself.
const auto = await connected({ mode: 'auto' });
assert.equal(await text(auto, 'read_file'), 'read');
console.log(state.token());
