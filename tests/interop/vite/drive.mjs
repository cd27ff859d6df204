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

await page.goto(`${scene.url}/?tab=1#part`);
await shows("who", "nobody is logged in");
await page.click("#in");
await page.waitForURL("**/auth/login?**");
await page.fill("[name=username]", scene.username);
await page.fill("[name=password]", scene.password);
await page.click("form button");
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

await page.click("#out");
await shows("who", "nobody is logged in");
// The session is over: the WebSocket ends, and a request leads to the login.
await shows("live", "closed: 1008");
await page.evaluate(() => document.getElementById("add").requestSubmit());
await page.waitForURL("**/auth/login?**");
await browser.close();
console.log("done");
