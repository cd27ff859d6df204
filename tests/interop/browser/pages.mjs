// The gate's own pages in Chromium: node pages.mjs < {"url", "password", "chromium", "images"?, "shots"?}
// Prints "done", or fails with what is wrong. "images" is the folder of the documents, and "shots" one for all pictures.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.MODULES + "/package.json");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const scene = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: scene.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
const SIZES = [[375, 720], [1280, 800]];
const DOCUMENTS = { "login-light-1280": "login-light", "away-dark-1280": "upstream-down-dark" };

/** A picture, and what axe says. */
const shot = async (page, name, { colorScheme, viewport }) => {
  const file = `${name}-${colorScheme}-${viewport.width}`;
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${file} is too wide`);
  if (scene.shots) await page.screenshot({ path: `${scene.shots}/${file}.png` });
  if (scene.images && DOCUMENTS[file]) {
    await page.screenshot({ path: `${scene.images}/${DOCUMENTS[file]}.png`, clip: { x: 240, y: 60, width: 800, height: 680 } });
  }
  if (!page.javaScript) return;
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document));
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes[0].html]), [], file);
};

const visit = async (options) => {
  const context = await browser.newContext({ bypassCSP: true, ...options });
  const outside = [];
  context.on("request", (request) => {
    if (!request.url().startsWith(scene.url + "/")) outside.push(request.url());
  });
  const page = await context.newPage();
  page.javaScript = options.javaScriptEnabled !== false;
  const at = (path) => page.url().split("?")[0] === scene.url + path;

  await page.goto(scene.url + "/app?x=y");
  assert.ok(at("/auth/login"), page.url());
  assert.equal(await page.title(), "Log in · Acme Bank");
  if (page.javaScript) await page.waitForFunction(() => document.querySelector("img").naturalWidth > 0);
  assert.equal(await page.locator("#username").evaluate((field) => field === document.activeElement), true);
  await shot(page, "login", options);

  await page.getByLabel("User name").fill("<demo\">");
  await page.getByLabel("Password").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  assert.equal(await page.getByRole("alert").textContent(), "The user name or the password is wrong.");
  assert.equal(await page.getByLabel("User name").inputValue(), "<demo\">", "the name stays");
  assert.equal(await page.getByLabel("Password").inputValue(), "");
  assert.equal(await page.locator("#password").evaluate((field) => field === document.activeElement), true);
  await shot(page, "wrong", options);

  await page.getByLabel("User name").fill("demo");
  await page.getByLabel("Password").fill(scene.password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(scene.url + "/app?x=y");

  for (const [path, name, status, heading] of [
    ["/away/x", "away", 502, "Not available at the moment"],
    ["/closed/x", "closed", 403, "No access"],
    ["/other", "missing", 404, "Page not found"],
  ]) {
    const reply = await page.goto(scene.url + path);
    assert.equal(reply.status(), status, path);
    assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), heading);
    assert.match(await page.locator(".id code").textContent(), /^[\w-]{16,}$/);
    await shot(page, name, options);
  }
  await page.goto(scene.url + "/closed/x");
  await page.getByRole("link", { name: "Log out" }).click();
  assert.ok(at("/auth/logout"), page.url());
  await shot(page, "logout", options);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "You are logged out" }).waitFor();
  await shot(page, "logged-out", options);
  await page.getByRole("link", { name: "Log in again" }).click();
  assert.ok(at("/auth/login"), page.url());
  assert.deepEqual(outside, [], "requests elsewhere");
  await context.close();
};

for (const colorScheme of ["light", "dark"]) {
  for (const [width, height] of SIZES) await visit({ colorScheme, viewport: { width, height } });
}
await visit({ colorScheme: "light", viewport: { width: 375, height: 720 }, javaScriptEnabled: false });

// The policy of each page, which the visits above leave out for axe: nothing is blocked, and the logo is inert.
const context = await browser.newContext({ locale: "de-DE" });
const page = await context.newPage();
const said = [];
page.on("console", (message) => said.push(message.text()));
await page.goto(scene.url + "/auth/login");
await page.waitForFunction(() => document.querySelector("img").naturalWidth > 0);
assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), "Anmelden");
assert.deepEqual(said, [], "what the policy blocks");
await page.goto(await page.locator("img").getAttribute("src"));
assert.equal(await page.evaluate(() => document.documentElement.tagName), "svg");
await browser.close();
console.log("done");
