import { logIn, session } from "./login.js";

export function connect() {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/app/ws`);
  socket.onclose = () => setTimeout(again, 1000);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({ data }) => show(data);
}
async function again() {
  const state = await session().catch(() => null);
  if (!state) setTimeout(again, 1000); // no network, or 503
  else if (state.authenticated) connect(); // the session goes on
  else logIn(state.login);
}

function show(data) {
  document.getElementById("live").textContent = data;
}
