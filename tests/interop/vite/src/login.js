// login.js: the whole client of a single-page application.
let leaving = false; // a logout is under way: nothing leads elsewhere
addEventListener("pageshow", () => (leaving = false));
export function logIn(login = "/auth/login") {
  if (leaving) return;
  const url = new URL(login, location); // a 401 may ask for a stronger login
  url.searchParams.set("to", location.href);
  location.assign(url);
}
export async function api(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "x-csrf": "1", ...options.headers } });
  if (answer.status !== 401) return answer; // 503: nothing was decided; try again later
  const refusal = await answer.clone().json().catch(() => null); // null: a 401 of the service itself
  if (refusal?.login) logIn(new URL(refusal.login, answer.url)); // the session is over
  return answer;
}
async function decided(answer) {
  if (!answer.ok) throw new Error(`nothing was decided: ${answer.status}`);
  return answer.json();
}
export const session = async () => decided(await api("/auth/session"));
export async function logout() {
  const { logout: atProvider } = await decided(await api("/auth/logout", { method: "POST" }));
  leaving = true;
  location.replace(atProvider ?? "/"); // the login at the provider ends, too
}
