import { api, logIn, logout, session } from "./login.js";
import { connect } from "./socket.js";

const at = (id) => document.getElementById(id);

async function show() {
  const { authenticated, subject } = await session();
  at("in").hidden = authenticated;
  at("out").hidden = at("add").hidden = !authenticated;
  at("who").textContent = authenticated ? `${subject} is logged in` : "nobody is logged in";
  return authenticated;
}

at("in").onclick = () => logIn();
at("out").onclick = () => logout().catch((error) => (at("who").textContent = error.message));
at("add").onsubmit = async (event) => {
  event.preventDefault();
  const answer = await api("/app/notes", { method: "POST", body: new FormData(event.target).get("note") });
  if (!answer.ok) return;
  const item = document.createElement("li");
  item.textContent = await answer.text();
  at("notes").append(item);
};
try {
  if (await show()) connect();
} catch (error) {
  at("who").textContent = error.message; // a user may be logged in or not
}
