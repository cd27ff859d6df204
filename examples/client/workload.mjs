// A job without a secret gets a token of the gate: it asks its platform for a new assertion each time, and exchanges that. No
// packages. In GitHub Actions the job needs `permissions: { id-token: write }`; in Kubernetes its service account may create
// `serviceaccounts/token` of itself.
//
//   node workload.mjs github|kubernetes https://gate.example.com [scope]      prints the access token
import { readFileSync } from 'node:fs';

const [platform, gate, scope] = process.argv.slice(2);
const json = async (url, options) => {
  const response = await fetch(url, options);
  if (!response.ok) throw new Error(`${new URL(url).host}: ${response.status} ${await response.text()}`);
  return response.json();
};

/** A token of GitHub about this run, for the gate alone. */
const github = async (audience) => {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: bearer } = process.env;
  const headers = { authorization: `Bearer ${bearer}` };
  return (await json(`${url}&audience=${encodeURIComponent(audience)}`, { headers })).value;
};

/** A token of the cluster about this service account, for the gate alone. The one that is mounted would count once a rotation. */
const kubernetes = async (audience) => {
  const folder = process.env.SERVICE_ACCOUNT ?? '/var/run/secrets/kubernetes.io/serviceaccount';
  const file = (name) => readFileSync(`${folder}/${name}`, 'utf8').trim();
  const own = file('token');
  const { sub } = JSON.parse(Buffer.from(own.split('.')[1], 'base64url'));
  const [, , namespace, name] = sub.split(':');
  // Node reads the authority of the cluster from NODE_EXTRA_CA_CERTS.
  const api = process.env.KUBERNETES_API ?? 'https://kubernetes.default.svc';
  const answer = await json(`${api}/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`, {
    method: 'POST',
    headers: { authorization: `Bearer ${own}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { audiences: [audience], expirationSeconds: 600 },
    }),
  });
  return answer.status.token;
};

const { issuer, token_endpoint } = await json(`${gate}/.well-known/oauth-authorization-server`);
const assertion = await { github, kubernetes }[platform](issuer);
const body = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion });
if (scope) body.set('scope', scope);
console.log((await json(token_endpoint, { method: 'POST', body })).access_token);
