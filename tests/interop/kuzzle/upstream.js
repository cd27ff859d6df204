// An upstream that speaks the protocol over HTTP and WebSocket, and says what it knows of its caller. Prints its port.
// The test itself asks it how many calls it holds back (`/held`), and has it answer them (`/release`).

import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

let connections = 0;
let held = [];

function answer(action, send) {
  if (action === 'hold') held.push(send);
  else send();
}

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://upstream');
  if (pathname === '/held') return response.end(String(held.length));
  if (pathname === '/release') {
    held.forEach((send) => send());
    held = [];
    return response.end();
  }
  const seen = { nonce: searchParams.get('nonce'), ...caller(request), sawToken: searchParams.has('jwt') };
  return answer(pathname.slice(1), () => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(seen));
  });
});

function caller({ headers }) {
  return { subject: headers['x-auth-subject'] ?? null, authorization: headers.authorization ?? null };
}

new WebSocketServer({ server }).on('connection', (socket, request) => {
  const connection = (connections += 1);
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    const { requestId, controller, action, nonce } = message;
    if (action === 'drop') return socket.terminate();
    const result = { connection, nonce, ...caller(request), sawToken: 'jwt' in message };
    // Without a room, as a server would answer that is not Kuzzle.
    const text = JSON.stringify({ requestId, status: 200, error: null, controller, action, result });
    answer(action, () => socket.send(text));
    if (action === 'notify') socket.send(JSON.stringify({ room: 'news', type: 'user', result: { connection } }));
    return undefined;
  });
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
