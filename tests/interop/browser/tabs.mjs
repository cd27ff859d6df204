// What users do to a login and a session, in Chromium: node tabs.mjs < {"url", "chromium", "provider"}
// Prints "done", or fails with what is wrong.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { chromium } = createRequire(process.env.MODULES + "/package.json")("playwright-core");
const scene = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.launch({
  executablePath: scene.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
const context = await browser.newContext();
const isAt = (page, path) => page.url().split("#")[0] === scene.url + path;
const state = (page) => page.evaluate(async () => (await (await fetch("/auth/session")).json()).authenticated);

/** Through the pages of the provider to a path. */
const logIn = async (page, path) => {
  for (let step = 0; step < 5 && !isAt(page, path); step++) {
    assert.ok(page.url().startsWith(scene.provider), page.url());
    if (await page.locator("[name=login]").count()) {
      await page.fill("[name=login]", "ada");
      await page.fill("[name=password]", "any");
    }
    await Promise.all([page.waitForNavigation(), page.click("form button[type=submit]")]);
  }
  assert.ok(isAt(page, path), `${page.url()} instead of ${path}`);
};

// Ten tabs are led to the login, and each one comes back to its own page.
const tabs = [];
for (let number = 0; number < 10; number++) {
  const page = await context.newPage();
  await page.goto(`${scene.url}/tab/${number}?x=y`);
  assert.ok(!isAt(page, `/tab/${number}?x=y`), "led to the login");
  tabs.push(page);
}
const callbacks = [];
context.on("request", (request) => {
  if (request.url().startsWith(`${scene.url}/auth/callback`)) callbacks.push(request.url());
});
for (const [number, page] of [...tabs.entries()].reverse()) {
  await logIn(page, `/tab/${number}?x=y`);
}
const names = (await context.cookies(scene.url)).map((cookie) => cookie.name);
assert.deepEqual(names, ["__Host-Http-rg"], "no login is left under way");
const [first, second] = tabs;
assert.equal(await state(first), true);

// The back button, forward again, and a callback that comes again: nobody is logged out, and nothing goes in a circle.
await first.goBack().catch(() => {});
await first.goto(`${scene.url}/tab/back`);
assert.ok(isAt(first, "/tab/back"));
assert.equal(callbacks.length, 10);
await first.goto(callbacks[0]);
assert.ok(isAt(first, "/"), first.url());
assert.equal(await state(first), true);

// Reloads, each in the middle of the one before, while the session is renewed every two seconds.
const reloads = [];
for (let number = 0; number < 40; number++) {
  reloads.push(second.reload().catch(() => {}));
  await new Promise((resolve) => setTimeout(resolve, 120));
}
// A navigation fails if a reload begins after it.
await Promise.all(reloads);
await second.goto(`${scene.url}/tab/reloaded`);
assert.ok(isAt(second, "/tab/reloaded"), "no login is asked for");
assert.equal(await state(second), true);

// The session ends while somebody fills a form.
const out = await first.evaluate(async () => (await fetch("/auth/logout", { method: "POST" })).status);
assert.equal(out, 200);
const sent = second.waitForNavigation();
await second.evaluate(() => {
  const form = Object.assign(document.createElement("form"), { method: "post", action: "/orders" });
  document.body.append(form);
  form.submit();
});
const answer = await sent;
assert.equal(answer.status(), 401);
assert.match(await second.textContent("body"), /[Yy]our entry was not sent/);
assert.deepEqual((await context.cookies(scene.url)).map((cookie) => cookie.name), [], "the cookie is cleared");
// What the browser fetches ahead, by a speculation rule, begins no login, neither for a prefetch nor for a prerender.
const ahead = async (how, path) => {
  await first.bringToFront(); // a hidden page fetches nothing ahead
  const devtools = await context.newCDPSession(first);
  const ended = new Promise((resolve) => {
    devtools.on("Preload.prefetchStatusUpdated", ({ prefetchUrl, status, prefetchStatus }) => {
      if (prefetchUrl === scene.url + path && ["Ready", "Success", "Failure"].includes(status)) resolve(prefetchStatus);
    });
  });
  await devtools.send("Preload.enable");
  const rules = JSON.stringify({ [how]: [{ source: "list", urls: [path], eagerness: "immediate" }] });
  await first.evaluate((textContent) => {
    document.head.append(Object.assign(document.createElement("script"), { type: "speculationrules", textContent }));
  }, rules);
  const status = await ended;
  await devtools.detach();
  return status;
};
for (const how of ["prefetch", "prerender"]) {
  assert.equal(await ahead(how, `/tab/${how}`), "PrefetchFailedNon2XX");
}
assert.deepEqual(await context.cookies(scene.url), [], "no login is under way");
// From there the user logs in again.
await second.goto(`${scene.url}/tab/again`);
await logIn(second, "/tab/again");
assert.equal(await state(second), true);
// With a session, what was fetched ahead is the page.
assert.equal(await ahead("prefetch", "/tab/ahead"), "PrefetchSuccessfulButNotUsed");
await browser.close();
console.log("done");
