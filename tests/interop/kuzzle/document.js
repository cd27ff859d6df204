// The example of the SDK's own documentation for auth:refreshToken, as printed there, over the transport given.

import assert from 'node:assert/strict';
import kuzzleSdk from 'kuzzle-sdk';

const { Http, Kuzzle, WebSocket } = kuzzleSdk;
const Transport = process.argv[2] === 'http' ? Http : WebSocket;
const kuzzle = new Kuzzle(new Transport('127.0.0.1', { port: Number(process.env.GATE_PORT) }));
const printed = [];
const console_ = { log: (value) => printed.push(value), error: (message) => printed.push(new Error(message)) };
await kuzzle.connect();
await ((console) => example(console))(console_);
kuzzle.disconnect();

async function example(console) {
  const credentials = { username: 'foo', password: 'bar' };
  try {
    const jwt = await kuzzle.auth.login('local', credentials);
    // Prints the encrypted authentication token
    console.log(jwt);
    // Note: to get a different token, you actually need to wait at least
    // 1 second. Otherwise you do receive a refreshed token, but with the exact
    // same caracteristics, as the key depends on the timestamp in Epoch format
    await new Promise((resolve) => setTimeout(resolve, 1000));
    // Prints:
    // { _id: '<user kuid>',
    //   jwt: '<a different encrypted authentication token>'
    //   expiresAt: 1553185334220,
    //   ttl: 3600000 }
    console.log(await kuzzle.auth.refreshToken());
  } catch (error) {
    console.error(error.message);
  }
}

const [jwt, refreshed, ...rest] = printed;
assert.equal(rest.length, 0);
assert.equal(typeof jwt, 'string');
assert.deepEqual(Object.keys(refreshed).sort(), ['_id', 'expiresAt', 'jwt', 'ttl']);
assert.equal(refreshed._id, process.env.USER_SUBJECT);
assert.notEqual(refreshed.jwt, jwt);
assert.equal(refreshed.jwt, kuzzle.jwt);
assert.equal(String(refreshed.expiresAt).length, 13, 'Epoch-millis');
assert.ok(refreshed.ttl > 3_590_000 && refreshed.ttl <= 3_600_000, `${refreshed.ttl} ms`);
console.log('the SDK is content');
