// An upstream that speaks the protocol over WebSocket and says what it knows of its caller. Prints its port.

import { WebSocketServer } from 'ws';

let connections = 0;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket, request) => {
  const connection = (connections += 1);
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.action === 'drop') return socket.terminate();
    const result = {
      connection,
      subject: request.headers['x-auth-subject'] ?? null,
      authorization: request.headers.authorization ?? null,
      sawToken: 'jwt' in message,
    };
    const { requestId, controller, action } = message;
    // Without a room, as a server would answer that is not Kuzzle.
    socket.send(JSON.stringify({ requestId, status: 200, error: null, controller, action, result }));
    if (action === 'notify') socket.send(JSON.stringify({ room: 'news', type: 'user', result: { connection } }));
  });
});
