// An outside provider (oidc-provider, with dynamic registration, PKCE and resource indicators), an MCP server of the SDK, and one
// of version 2026-07-28 of the protocol.
// Prints their URLs as JSON. The one argument is the resource that the provider issues tokens for.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createMcpHandler, McpServer as ServerOf2026 } from '@modelcontextprotocol/server';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import Provider, { errors } from 'oidc-provider';

const resource = process.argv[2];
const listening = async (server) => {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
};

const identity = createServer();
const issuer = await listening(identity);
const provider = new Provider(issuer, {
  scopes: ['openid', 'offline_access', 'read', 'write'],
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, indicator) => {
        if (indicator !== resource) throw new errors.InvalidTarget();
        return { scope: 'read write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600 };
      },
    },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
});
const callback = provider.callback();
identity.on('request', async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return callback(request, response);
  // The user logs in, and consents to everything.
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  let result = { login: { accountId: 'ada' } };
  if (prompt.name === 'consent') {
    const { accountId } = session;
    const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId, clientId: params.client_id });
    grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
    for (const [indicator, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
      grant.addResourceScope(indicator, scopes.join(' '));
    }
    result = { consent: { grantId: await grant.save() } };
  }
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
});

// A server for each session: it tells what the gate said of the caller, and whether a token came along.
const sessions = new Map();
const upstream = createServer(async (request, response) => {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response);
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  const server = new McpServer({ name: 'tools', version: '1.0.0' });
  for (const tool of ['whoami', 'delete_file']) {
    server.registerTool(tool, { description: 'the caller' }, ({ requestInfo: { headers } }) => {
      const said = { subject: headers['x-auth-subject'], scope: headers['x-auth-scope'], token: 'authorization' in headers };
      return { content: [{ type: 'text', text: JSON.stringify(said) }] };
    });
  }
  await server.connect(transport);
  return transport.handleRequest(request, response);
});

// The newest version has no sessions: each request is a call.
const calls = createMcpHandler((context) => {
  const server = new ServerOf2026({ name: 'files', version: '1.0.0' });
  const tool = (name, text) => server.registerTool(name, { description: name }, async () => ({ content: [{ type: 'text', text }] }));
  tool('read_file', 'read');
  tool('delete_file', 'deleted');
  return server;
});
const newest = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
  const body = chunks.length ? Buffer.concat(chunks) : undefined;
  const reply = await calls.fetch(new Request(`http://server${request.url}`, { method: request.method, headers, body }));
  response.writeHead(reply.status, Object.fromEntries(reply.headers));
  response.end(Buffer.from(await reply.arrayBuffer()));
});
console.log(JSON.stringify({ issuer, upstream: await listening(upstream), newest: await listening(newest) }));
