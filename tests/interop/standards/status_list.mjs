// Token Status Lists with @sd-jwt/jwt-status-list, whose tokens jose signs and verifies.
import * as jose from "jose";
import {
  StatusList,
  createHeaderAndPayload,
  getListFromStatusListJWT,
  getStatusListFromJWT,
} from "@sd-jwt/jwt-status-list";

const [mode, ...given] = process.argv.slice(2);

// The status of a token of the gate: its list is at the gate, whatever host the URL names.
async function read(gate, token) {
  const { idx, uri } = getStatusListFromJWT(token);
  const reply = await fetch(new URL(new URL(uri).pathname, gate));
  if (reply.headers.get("content-type") !== "application/statuslist+jwt") throw new Error(`${reply.status}`);
  const list = await reply.text();
  const keys = jose.createRemoteJWKSet(new URL("/.well-known/jwks.json", gate));
  const { payload } = await jose.jwtVerify(list, keys, { typ: "statuslist+jwt", subject: uri, maxTokenAge: 300 });
  if (payload.ttl !== 5) throw new Error("ttl");
  return getListFromStatusListJWT(list).getStatus(idx);
}

// An issuer with a list of two bits a token, and tokens at these places.
async function make(issuer, uri) {
  const { publicKey, privateKey } = await jose.generateKeyPair("ES256", { extractable: true });
  const jwk = { ...(await jose.exportJWK(publicKey)), kid: "sd", alg: "ES256", use: "sig" };
  const now = Math.floor(Date.now() / 1000);
  const states = new StatusList([0, 1, 2, 0, 0, 0, 0, 3], 2);
  const claims = { iss: issuer, sub: uri, iat: now, exp: now + 600, ttl: 60 };
  const made = createHeaderAndPayload(states, claims, { alg: "ES256", typ: "statuslist+jwt", kid: "sd" });
  const sign = (header, payload) => new jose.SignJWT(payload).setProtectedHeader(header).sign(privateKey);
  const token = (idx) =>
    sign(
      { alg: "ES256", typ: "at+jwt", kid: "sd" },
      { iss: issuer, sub: "ada", aud: "api", client_id: "web", jti: `${idx}`, scope: "read", iat: now, exp: now + 600,
        status: { status_list: { idx, uri } } },
    );
  const tokens = await Promise.all([0, 1, 2, 3, 7, 8].map(token));
  return JSON.stringify({ jwk, list: await sign(made.header, made.payload), tokens });
}

console.log(mode === "read" ? await read(...given) : await make(...given));
