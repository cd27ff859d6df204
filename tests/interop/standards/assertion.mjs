// Verifies assertions as docs/assertion.md says: node assertion.mjs GATE ASSERTION. Prints the subject.
// Snippet:
import { createRemoteJWKSet, jwtVerify } from 'jose'

const gate = process.argv[2]   // 'https://gate.example.com'
const keys = createRemoteJWKSet(new URL(`${gate}/.well-known/jwks.json`))
const { payload } = await jwtVerify(process.argv[3], keys, {
  issuer: 'http://gate.test', audience: 'app', typ: 'identity+jwt', algorithms: ['EdDSA'],
})
console.log(payload.sub)
