// The page in Chromium: node drive.mjs < {"url", "chromium", "username", "password"}. Prints "done", or fails with what is wrong.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const scene = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: scene.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
const context = await browser.newContext();
const page = await context.newPage();
const shows = (id, text) => page.waitForFunction(([id, text]) => document.getElementById(id)?.textContent.includes(text), [id, text]);

async function logIn() {
  await page.waitForURL("**/auth/login?**");
  await page.fill("[name=username]", scene.username);
  await page.fill("[name=password]", scene.password);
  await page.click("form button");
}

await page.goto(`${scene.url}/?tab=1#part`);
await shows("who", "nobody is logged in");
await page.click("#in");
await logIn();
// Back, with query and fragment.
await page.waitForURL(`${scene.url}/?tab=1#part`);
await shows("who", "is logged in");
assert.equal(await page.evaluate(() => document.cookie), "", "no script sees the cookie");
const [cookie] = await context.cookies();
assert.deepEqual([cookie.name, cookie.httpOnly, cookie.secure], ["__Host-Http-rg", true, true]);

await page.fill("[name=note]", "buy milk");
await page.click("#add button");
await shows("notes", "buy milk");
await shows("live", "hello over");

// A 401 of the service itself leads nowhere, and ends no session.
const once = (path, answer) => page.route(`**${path}`, (route) => route.fulfill(answer), { times: 1 });
const status = () => page.evaluate(() => import("/src/login.js").then(({ api }) => api("/app/notes")).then((answer) => answer.status));
await once("/app/notes", { status: 401, body: "<h1>no</h1>" });
assert.equal(await status(), 401);
assert.equal(await status(), 200);

// 503 decides nothing: the page shows neither a logout nor a login.
await once("/auth/logout", { status: 503, json: {} });
await page.click("#out");
await shows("who", "nothing was decided: 503");
assert.equal(page.url(), `${scene.url}/?tab=1#part`);
await once("/auth/session", { status: 503, json: {} });
await page.reload();
await shows("who", "nothing was decided: 503");
await page.reload();
await shows("who", "is logged in");
await shows("live", "hello");

// The login at the provider ends, too. Its page is slow: until it comes, the end of the WebSocket leads to no login.
await page.route("**/auth/logout", async (route) => {
  const response = await route.fetch();
  await route.fulfill({ response, json: { logout: `${scene.url}/provider` } });
}, { times: 1 });
await page.route("**/provider", async (route) => {
  await page.waitForResponse("**/auth/session");
  await route.fulfill({ body: "bye" });
});
await page.click("#out");
await page.waitForURL("**/provider");

await page.goto(`${scene.url}/?tab=2`);
await shows("who", "nobody is logged in");
await page.click("#in");
await logIn();
await shows("live", "hello");

// The session ends elsewhere. Its connection ends with 1008; after an answer that decides nothing the page asks again.
await once("/auth/session", { status: 503, json: {} });
const ended = await context.request.post(`${scene.url}/auth/logout`, { headers: { origin: scene.url } });
assert.equal(ended.status(), 200);
await page.waitForURL("**/auth/login?**");

// The session is over before the handshake, which the browser shows as 1006.
await once("/auth/session", { json: { authenticated: true, subject: "demo" } });
await page.goto(`${scene.url}/?late`);
await page.waitForURL("**/auth/login?**");
assert.equal(new URL(page.url()).searchParams.get("to"), `${scene.url}/?late`);

// A request of a session that is over leads to the login, and a logout to the page.
await logIn();
await shows("who", "is logged in");
await page.click("#out");
await shows("who", "nobody is logged in");
await page.evaluate(() => {
  const form = document.getElementById("add");
  form.note.value = "late";
  form.requestSubmit();
});
await page.waitForURL("**/auth/login?**");
await browser.close();
console.log("done");
