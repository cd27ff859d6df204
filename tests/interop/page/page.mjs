// The admin page in Chromium: node page.mjs < {"page", "gate", "token", "username", "password", "chromium", "images"?}
// Prints "done", or fails with what is wrong.

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
const VIEWS = [
  "/ui/", "/ui/refused", "/ui/sessions", "/ui/users", "/ui/explain", "/ui/keys", "/ui/api-keys", "/ui/routes", "/ui/config", "/ui/events",
];
const XSS = "<img src=x onerror=document.title='hacked'>";
const CONSENT = "Revoke session";

/** What the browser asked for, and what it complained about. */
const problems = [];
const urls = new Set();
const watched = async (options) => {
  const context = await browser.newContext({ viewport: { width: 1000, height: 560 }, ...options });
  context.on("request", (request) => {
    urls.add(request.url());
    if (!request.url().startsWith(scene.page + "/")) problems.push(`an outside request: ${request.url()}`);
  });
  context.on("console", (message) => {
    if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) problems.push(message.text());
  });
  context.on("dialog", (opened) => problems.push(`a dialog of a script: ${opened.message()}`));
  context.on("weberror", (error) => problems.push(String(error.error())));
  return context;
};

/** A login on the data path. */
const logIn = async (userAgent, username = scene.username) => {
  const body = new URLSearchParams({ grant_type: "password", client_id: "web", username, password: scene.password });
  const reply = await fetch(scene.gate + "/connect/token", { method: "POST", body, headers: { "user-agent": userAgent } });
  assert.equal(reply.status, 200, "login");
  const tokens = await reply.json();
  const id = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url")).sid;
  return { access: tokens.access_token, id };
};
const status = async (access) => (await fetch(scene.gate + "/x", { headers: { authorization: "Bearer " + access } })).status;

/** The folder of the last sign-in, and a view in it. */
let folder = "/ui/";
const at = (view) => scene.page + view.replace("/ui/", folder);

const signIn = async (page) => {
  await page.goto(scene.page + "/");
  assert.equal(new URL(page.url()).pathname, "/ui/sign-in");
  await page.getByLabel("Admin token").fill(scene.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  folder = new URL(page.url()).pathname;
  assert.match(folder, /^\/ui\/[\w-]{43}\/$/, "a folder of its own");
};

/** The figures of the overview come again by themselves. Where the keyboard is, nothing is replaced. */
const areLive = async (page) => {
  await page.evaluate(() => (document.getElementById("live-figures").textContent = ""));
  await page.waitForFunction(() => /Live sessions/.test(document.getElementById("live-figures").textContent));
};

/** The charts have a line, an axis, and a tip at the cursor of the mouse and of the keyboard. The table has the figures. */
const areDrawn = async (page) => {
  const chart = page.locator("#chart-requests");
  await chart.locator("canvas").waitFor();
  const tip = chart.locator(".tip");
  const inks = () =>
    chart.locator("canvas").evaluate((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size;
    });
  assert.ok((await inks()) > 10, "lines and labels");
  await page.waitForFunction(() => JSON.parse(document.querySelector("#chart-requests .plot").dataset.plot).values[0].length > 0);
  await chart.locator(".plot").focus();
  await page.keyboard.press("ArrowLeft");
  await tip.getByText(/^all: [\d.]+ req\/s$/).waitFor();
  await page.locator("h1").click();
  await tip.waitFor({ state: "hidden" });
  // The mouse reaches only what is within the window.
  await chart.locator(".u-over").scrollIntoViewIfNeeded();
  const box = await chart.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width - 1, box.y + 20);
  await tip.getByText(/^\d\d:\d\d:\d\d$/).waitFor();
  // The crosshair is at a moment that has figures, and the lines begin at the left edge.
  const isAtFigures = await page.evaluate(() => {
    const [line, over] = ["#chart-requests .u-cursor-x", "#chart-requests .u-over"].map((it) => document.querySelector(it).getBoundingClientRect());
    const { every, span } = JSON.parse(document.querySelector("#chart-requests .plot").dataset.plot);
    const steps = ((over.right - line.left) / over.width) * (span / every);
    return Math.abs(steps - Math.round(steps)) * (over.width / (span / every)) < 2;
  });
  assert.ok(isAtFigures, "the crosshair snaps to the figures");
  await chart.getByText("Figures as a table").click();
  await chart.getByRole("cell", { name: "req/s" }).first().waitFor();
  await page.mouse.move(0, 0);
};

/** The filter of settings works at once. It also finds defaults. */
const areFiltered = async (page) => {
  await page.goto(at("/ui/config"));
  const rows = page.locator("details.section tbody tr:visible");
  const number = await rows.count();
  const said = page.locator("#number");
  assert.equal(await said.textContent(), `${number} settings`);
  await page.getByLabel("Find settings").fill("SERVER workers");
  await said.getByText("1 setting", { exact: true }).waitFor();
  assert.match(await rows.textContent(), /server\.workers.*default/);
  await page.getByLabel("Find settings").fill("no such setting");
  await page.getByText("No setting matches").waitFor();
  await isSound(page, "no setting");
  await page.getByLabel("Find settings").fill("");
  await said.getByText(`${number} settings`).waitFor();
  // By the button, a view of the gate's has the same settings.
  await page.getByLabel("Find settings").fill("SERVER workers");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=SERVER/);
  assert.equal(await rows.count(), 1);
};

/** No word is broken, nothing is outside the viewport, and no control is covered. */
const isLaidOut = async (page, what) => {
  const problems = await page.evaluate(() => {
    const problems = new Set();
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth) problems.add(`it scrolls sideways: ${root.scrollWidth}`);
    // Only screen readers see the heads of cards, and the link to the content until it has the focus.
    const isSeen = (element) => element.checkVisibility() && !element.closest(".skip, datalist, dialog:not([open])");
    const hasLeft = (element) => element.closest("thead") && getComputedStyle(element.closest("thead")).position === "absolute";
    const seen = [...document.body.querySelectorAll("*")].filter((element) => isSeen(element) && !hasLeft(element));
    for (const element of seen) {
      const { left, right, width } = element.getBoundingClientRect();
      if (width > 0 && (left < -1 || right > root.clientWidth + 1)) problems.add(`outside: ${element.outerHTML.slice(0, 90)}`);
    }
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text; (text = texts.nextNode()); ) {
      if (!seen.includes(text.parentElement)) continue;
      for (const token of text.data.matchAll(/\S+/g)) {
        // A longer one is an id, an address or a header.
        if (token[0].length > 24) continue;
        for (const word of token[0].matchAll(/[\p{L}\p{N}]+/gu)) {
          const range = document.createRange();
          range.setStart(text, token.index + word.index);
          range.setEnd(text, token.index + word.index + word[0].length);
          const tops = [...range.getClientRects()].filter(({ width }) => width > 0).map(({ top }) => Math.round(top));
          if (new Set(tops).size > 1) problems.add(`broken: ${word[0]} in ${token[0]}`);
        }
      }
    }
    for (const control of seen.filter((element) => element.matches("a, button, input, select, textarea, summary"))) {
      control.scrollIntoView({ block: "center", behavior: "instant" });
      const { left, top, width, height } = control.getClientRects()[0];
      const there = document.elementFromPoint(left + width / 2, top + height / 2);
      if (!there || !(control.contains(there) || there.contains(control))) problems.add(`covered: ${control.outerHTML.slice(0, 90)}`);
    }
    scrollTo(0, 0);
    return [...problems];
  });
  assert.deepEqual(problems, [], what);
};

/** No finding of axe-core, one h1, and no markup of a user's. */
const isSound = async (page, what) => {
  // By the protocol of the developer tools: the page's own policy forbids to add a script.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  assert.deepEqual(violations.map((each) => [each.id, each.nodes.map((node) => node.html)]), [], what);
  assert.equal(await page.locator("h1").count(), 1, what);
  assert.equal(await page.locator("main").count(), 1, what);
  assert.equal(await page.locator("img").count(), 0, what);
  assert.ok(!(await page.title()).includes("hacked"), what);
  assert.ok(!(await page.content()).includes(scene.token), what + ": the token");
};

const image = async (page, name) => {
  if (scene.images) await page.screenshot({ path: `${scene.images}/${name}.png`, scale: "css" });
};

const search = async (page) => {
  await page.goto(at("/ui/sessions"));
  await page.getByLabel("Find sessions").fill(scene.username);
  await page.getByRole("button", { name: "Search" }).click();
};
const rowOf = (page, id) => page.locator("tbody tr", { has: page.locator(`a[href="${folder}sessions/${id}"]`) });

// Without script: a confirmation is a view of its own.
{
  const { access, id } = await logIn(XSS);
  const other = await logIn("Mozilla/5.0 Firefox/140.0");
  const context = await watched({ javaScriptEnabled: false });
  const page = await context.newPage();
  await signIn(page);
  await search(page);
  assert.equal(await rowOf(page, id).locator(".agent").textContent(), XSS, "a user agent is text");
  await rowOf(page, id).getByRole("button").click();
  await page.getByRole("heading", { level: 1, name: "Revoke this session?" }).waitFor();
  await page.getByText(id, { exact: false }).waitFor();
  assert.equal(await status(access), 200, "asked first");
  await page.getByRole("button", { name: CONSENT }).click();
  await page.getByRole("status").filter({ hasText: `Session ${id} revoked` }).waitFor();
  assert.equal(await status(access), 401, "revoked");
  assert.equal(await status(other.access), 200, "another session");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { level: 1, name: "Sign in" }).waitFor();
  await context.close();
}

// With script: a dialog; then by the keyboard alone.
for (const colorScheme of ["light", "dark"]) {
  const [mouse, keys] = [await logIn("Mozilla/5.0 Firefox/140.0"), await logIn("curl/8.16")];
  const context = await watched({ colorScheme });
  const page = await context.newPage();
  await page.goto(scene.page + "/ui/sign-in");
  await isSound(page, "sign-in");
  await page.getByLabel("Admin token").fill("a wrong token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await isSound(page, "a refused sign-in");
  await signIn(page);
  await areLive(page);
  await areDrawn(page);
  for (const view of VIEWS) {
    await page.goto(at(view));
    await isSound(page, `${view} ${colorScheme}`);
  }
  await areFiltered(page);
  // A key whose name is markup, shown once.
  await page.goto(at("/ui/api-keys"));
  await page.getByText("New key", { exact: true }).click();
  await isSound(page, "the form of a key " + colorScheme);
  await isLaidOut(page, "the form of a key " + colorScheme);
  await page.getByLabel("Name", { exact: true }).fill(XSS);
  await page.getByLabel("Name of the owner").fill(scene.username);
  await page.getByRole("button", { name: "Create key" }).click();
  const key = await page.locator("code", { hasText: "acme_k1_" }).textContent();
  await isSound(page, "a new key " + colorScheme);
  await isLaidOut(page, "a new key " + colorScheme);
  await page.getByRole("link", { name: "Back to the keys" }).click();
  await page.getByRole("row", { name: XSS }).first().getByRole("button", { name: /^Revoke key/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke key" }).click();
  await page.getByRole("status").filter({ hasText: "revoked: it is refused" }).waitFor();
  assert.ok(!(await page.content()).includes(key), "the key is not shown again");
  await isSound(page, "API keys " + colorScheme);
  await search(page);
  await isSound(page, "sessions " + colorScheme);
  await rowOf(page, mouse.id).getByRole("button").click();
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await isSound(page, "the dialog " + colorScheme);
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await dialog.waitFor({ state: "hidden" });
  assert.equal(await status(mouse.access), 200, "cancelled");
  await rowOf(page, mouse.id).getByRole("button").click();
  await dialog.getByRole("button", { name: CONSENT }).click();
  const said = page.getByRole("status").filter({ hasText: `Session ${mouse.id} revoked` });
  await said.waitFor();
  assert.equal(await status(mouse.access), 401, "revoked");
  // The focus is at what was said, as soon as the browser has drawn the view.
  await page.waitForFunction(() => document.activeElement.matches(".notice[role=status]"));
  await isSound(page, "a notice " + colorScheme);

  // Several at once; the search stays.
  const several = [await logIn("one of several"), await logIn("the other")];
  await search(page);
  for (const { id } of several) await page.getByRole("checkbox", { name: `Select session ${id}` }).check();
  await page.getByRole("button", { name: "Revoke the selected sessions" }).click();
  await dialog.getByText("2 selected").waitFor();
  await dialog.getByRole("button", { name: "Revoke the selected" }).click();
  await page.getByRole("status").filter({ hasText: "2 selected sessions revoked" }).waitFor();
  for (const { access } of several) assert.equal(await status(access), 401, "revoked with the other");
  assert.equal(await page.getByLabel("Find sessions").inputValue(), scene.username, "the search stays");

  // By the keyboard: to the button, to the dialog, out of it, and again.
  const button = rowOf(page, keys.id).getByRole("button");
  const isAt = (locator) => locator.evaluate((element) => element === document.activeElement);
  const tabTo = async (locator) => {
    for (let presses = 0; presses < 200; presses += 1) {
      if (await isAt(locator)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail("the keyboard does not get there");
  };
  await tabTo(button);
  const outline = await button.evaluate((element) => getComputedStyle(element).outlineStyle);
  assert.notEqual(outline, "none", "the focus is seen");
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  assert.ok(await isAt(button), "the focus is where it was");
  await page.keyboard.press("Enter");
  await tabTo(dialog.getByRole("button", { name: CONSENT }));
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: `Session ${keys.id} revoked` }).waitFor();
  assert.equal(await status(keys.access), 401, "revoked by the keyboard");

  await page.goto(at(`/ui/sessions/${keys.id}`));
  await isSound(page, "a session " + colorScheme);
  await page.getByText("by default (admin)").waitFor();

  await page.goto(at("/ui/explain"));
  await page.getByLabel("Path").fill("/x");
  await page.getByLabel("Access token").fill(keys.access);
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByRole("heading", { level: 2, name: "token_revoked" }).waitFor();
  await isSound(page, "an explanation " + colorScheme);
  assert.ok(!(await page.content()).includes(keys.access), "the token is not shown again");

  // Live lines; a user's name and a path are text.
  await page.goto(at("/ui/events"));
  const before = await page.locator("#lines tr").count();
  assert.ok(before > 0);
  const { id } = await logIn(XSS);
  await page.locator("#lines tr", { hasText: id }).first().waitFor();
  await page.getByText(/\d+ new lines?/).waitFor();
  // A line opens below itself, and its cells stay where they are.
  const row = page.locator("#lines tr").first();
  const cells = () => row.locator("th, td").evaluateAll((all) => all.map((cell) => JSON.stringify(cell.getBoundingClientRect())));
  const closed = await cells();
  await row.locator("summary").click();
  await page.getByText("event.code").first().waitFor();
  assert.deepEqual(await cells(), closed, "the cells of an opened row");
  await isSound(page, "events " + colorScheme);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Follow" }).waitFor();

  const cookies = await context.cookies();
  assert.ok(cookies.length > 0 && cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === "Strict"));
  assert.ok(cookies.every((cookie) => cookie.value !== scene.token), "the token is in no cookie");
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.equal(kept, '[{},{},""]', "nothing is kept");

  // Everybody of a user, at last.
  await search(page);
  await page.getByRole("button", { name: /^Revoke all/ }).click();
  await dialog.getByRole("button", { name: /^Revoke all/ }).click();
  await page.getByRole("status").filter({ hasText: `of ${scene.username} revoked` }).waitFor();
  await context.close();
}
// A user's name that is markup, in an answer and in a form.
{
  const context = await watched({});
  const page = await context.newPage();
  await signIn(page);
  await page.goto(at("/ui/sessions?user=" + encodeURIComponent(XSS) + "&client=" + encodeURIComponent(XSS)));
  await isSound(page, "a name that is markup");
  assert.ok((await page.getByLabel("Find sessions").inputValue()).includes(XSS));
  await page.goto(at("/ui/routes"));
  await page.getByText("<img src=x>").first().waitFor();
  await isSound(page, "a route that is markup");
  await context.close();
}
// Small and wide screens: with a gate whose requests pass, and with one whose requests fail.
{
  const call = async (path) => (await fetch(scene.gate + path)).status;
  const { id } = await logIn("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)");
  const context = await watched({});
  const page = await context.newPage();
  await signIn(page);
  const views = [...VIEWS, `/ui/sessions/${id}`, `/ui/sessions/${id}/revoke`, "/ui/outcome?word=token_expired", "/ui/nowhere"];
  const areLaidOut = async (views, what) => {
    for (const width of [375, 768, 1280, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      for (const view of views) {
        await page.goto(at(view));
        await isLaidOut(page, `${view} ${width} ${what}`);
        if (width === 375) await isSound(page, `${view} ${width} ${what}`);
      }
    }
  };
  await areLaidOut(views, "passing");
  // On a small screen the views are in a menu, which needs no script.
  const own = folder;
  for (const javaScriptEnabled of [true, false]) {
    const small = await watched({ javaScriptEnabled, viewport: { width: 375, height: 812 } });
    const page = await small.newPage();
    await signIn(page);
    const menu = page.getByRole("button", { name: "Menu" });
    assert.equal(await page.getByRole("link", { name: "Keys", exact: true }).count(), 0, "the menu is closed");
    await menu.press("Enter");
    await page.getByRole("link", { name: "Keys", exact: true }).waitFor();
    if (javaScriptEnabled) await isSound(page, "the menu");
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "Keys", exact: true }).waitFor({ state: "hidden" });
    await menu.click();
    await page.getByRole("link", { name: "Keys", exact: true }).click();
    await page.getByRole("heading", { level: 1, name: "Keys" }).waitFor();
    await small.close();
  }
  folder = own;
  await page.goto(at("/ui/"));
  assert.doesNotMatch(await page.locator("header .state").textContent(), /failing/);
  // Without another word of the operator, the view says so.
  const failing = page.locator("#live-state strong.bad", { hasText: "failing" });
  for (let rounds = 0; (await failing.count()) === 0; rounds += 1) {
    assert.ok(rounds < 60, "it says that requests fail");
    for (let calls = 0; calls < 40; calls += 1) assert.equal(await call("/orders/1"), 502);
    await page.waitForTimeout(500);
  }
  await areLaidOut(["/ui/", "/ui/routes"], "failing");
  await page.setViewportSize({ width: 1280, height: 1100 });
  await page.goto(at("/ui/"));
  await image(page, "overview-failing");
  await page.getByRole("link", { name: "upstream_unreachable" }).click();
  await page.getByText("What to do").waitFor();
  // Its chart is like those of the overview. The newest requests lead to the refused requests with this outcome.
  await page.locator("#chart-outcome canvas").waitFor();
  const recent = page.locator("tbody th a");
  assert.ok((await recent.count()) > 0 && (await recent.count()) <= 5, "the newest requests");
  assert.match(await recent.first().getAttribute("href"), /refused\?outcome=upstream_unreachable&request_id=/);
  await isSound(page, "an outcome");
  await context.close();
}
// The images of a page without markup in its names.
if (scene.images) {
  const ada = [];
  for (const browser of ["Firefox/140.0", "Safari/604.1", "Chrome/142.0"]) ada.push(await logIn(`Mozilla/5.0 ${browser}`, scene.reader));
  for (const colorScheme of ["light", "dark"]) {
    const context = await watched({ colorScheme, viewport: { width: 1280, height: 640 } });
    const page = await context.newPage();
    await signIn(page);
    await page.goto(at("/ui/sessions?q=" + encodeURIComponent(scene.reader)));
    await rowOf(page, ada[0].id).getByRole("button").click();
    await image(page, `sessions-${colorScheme}`);
    if (colorScheme === "light") {
      await page.getByRole("dialog").getByRole("button", { name: CONSENT }).click();
      await page.getByRole("status").filter({ hasText: "revoked" }).waitFor();
      await page.goto(at("/ui/explain"));
      await page.getByLabel("Path").fill("/orders?page=2");
      await page.getByLabel("Access token").fill(ada.shift().access);
      await page.getByRole("button", { name: "Explain" }).click();
      await page.getByRole("heading", { level: 2, name: "token_revoked" }).waitFor();
      await page.evaluate(() => scrollTo(0, 0));
      await image(page, "explain-light");
    }
    await context.close();
  }
}
await browser.close();
assert.deepEqual(problems, []);
for (const url of urls) assert.ok(!url.includes(scene.token), "the token is in no URL");
console.log("done");
