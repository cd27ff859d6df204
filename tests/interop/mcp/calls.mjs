// The second client of the MCP SDK, which speaks version 2026-07-28: a call that the rules permit, one that needs another
// scope, which the SDK asks its user for, and, at a gate of older versions alone (second argument `older`), a client of both
// eras that the gate tells the versions. The first argument is the gate's URL.
import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { provider } from './user.mjs';

const url = new URL('/mcp', process.argv[2]);
const { authProvider, state, browse } = provider();

let told = 0;
let sent = 0;
const watched = async (input, init) => {
  sent += 1;
  const reply = await fetch(input, init);
  if (reply.status === 400 && (await reply.clone().json()).error?.code === -32022) told += 1;
  return reply;
};

async function connected(versionNegotiation) {
  for (let logins = 0; ; logins += 1) {
    const transport = new StreamableHTTPClientTransport(url, { authProvider, fetch: watched });
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

const text = async ({ client }, name) => (await client.callTool({ name })).content[0].text;
if (process.argv[3] === 'older') {
  // M21: the gate names its versions once, and the client goes on with one of them.
  const auto = await connected({ mode: 'auto' });
  assert.equal(JSON.parse(await text(auto, 'whoami')).subject, 'ada');
  assert.deepEqual([told, auto.logins], [1, 1]);
  console.log(state.token());
  process.exit(0);
}

const first = await connected({ mode: { pin: '2026-07-28' } });
assert.equal(first.logins, 1, 'one login');
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

// M11: a role is missing, which no scope mends: one request, and neither a refresh nor a login.
state.asked = undefined;
sent = 0;
const kept = state.token();
await assert.rejects(text(first, 'secret_file'), (error) => !(error instanceof UnauthorizedError));
assert.deepEqual([sent, state.asked, state.token()], [1, undefined, kept]);

// A client of both eras finds that this gate speaks the newer version.
const auto = await connected({ mode: 'auto' });
assert.equal(await text(auto, 'read_file'), 'read');
assert.equal(told, 0);
console.log(state.token());
