// A service that acts for its caller, as docs/act-for-a-user.md shows it: node exchange.mjs GATE TOKEN SECRET.
// Snippet:
import * as client from 'openid-client'

const [gate, callersToken, secret] = process.argv.slice(2)   // 'https://gate.example.com', …
const server = { issuer: gate, token_endpoint: `${gate}/connect/token` }
const config = new client.Configuration(server, 'orders', undefined, client.ClientSecretBasic(secret))
if (gate.startsWith('http://127.')) client.allowInsecureRequests(config)

const tokens = await client.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: callersToken,
  subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  audience: 'billing',
})
const headers = { authorization: `Bearer ${tokens.access_token}` }
const reply = await fetch(`${gate}/billing/invoices`, { headers })
console.log(reply.status, tokens.scope, tokens.issued_token_type)
