/** Leads to the login, and back to this page. */
export const logIn = (login = "/auth/login") => {
  const url = new URL(login, location);
  url.searchParams.set("to", location.pathname + location.search + location.hash);
  location.assign(url);
};

/** `fetch`, which leads to the login when the session is over. 503: nothing was decided; try again later. */
export async function api(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.status === 401) logIn((await answer.clone().json()).login);
  return answer;
}

export const session = () => api("/auth/session").then((answer) => answer.json());
export const logOut = () => api("/auth/logout", { method: "POST" });
