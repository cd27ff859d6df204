import { api, logIn, logOut, session } from "./login.js";

const at = (id) => document.getElementById(id);

/** A WebSocket with the session of the page. */
function connect() {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/api/live`);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = ({ data }) => (at("live").textContent = data);
  socket.onclose = async ({ code }) => {
    at("live").textContent = `closed: ${code}`;
    if (code !== 1008) setTimeout(connect, 1000);
  };
}

async function show() {
  const { authenticated, subject } = await session();
  at("in").hidden = authenticated;
  at("out").hidden = at("add").hidden = !authenticated;
  at("who").textContent = authenticated ? `${subject} is logged in` : "nobody is logged in";
  return authenticated;
}

at("in").onclick = () => logIn();
at("out").onclick = () => logOut().then(show);
at("add").onsubmit = async (event) => {
  event.preventDefault();
  const answer = await api("/api/notes", { method: "POST", body: new FormData(event.target).get("note") });
  if (!answer.ok) return;
  const item = document.createElement("li");
  item.textContent = await answer.text();
  at("notes").append(item);
};
if (await show()) connect();
