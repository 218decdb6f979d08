// The page of `dashboard`. URL is its address, FOLDER the folder of runs that it serves, RUN one of them, which
// these tests add lines to. MANY is the address of a dashboard of many long runs, N_MANY their number.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import * as pages from "./pages.mjs";

const { URL: url, FOLDER: folder, RUN: run, MANY: many } = process.env;
const record = path.join(folder, run, "metrics.jsonl");
// Some looks of the page at its server, and time for a busy machine.
const SOON = { timeout: 15_000 };
let browser;
before(async () => { browser = await pages.browser(); });
after(async () => { await browser?.close(); });

const opened = async (of = "", view = pages.VIEWS[0]) => {
  const { page, complaints } = await pages.open(browser, url + of, view);
  await page.locator("#runs tbody tr").first().waitFor(SOON);
  return { page, complaints };
};
const row = (page, name) => page.locator("#runs tbody tr").filter({ has: page.getByRole("link", { name, exact: true }) });

for (const view of pages.VIEWS) {
  test(`the list and a run keep the rules at ${view.width} px, ${view.scheme}`, async () => {
    const { page, complaints } = await opened("", view);
    await pages.check_rules(page);
    await pages.shoot(page, `dashboard-${view.width}-${view.scheme}`);
    await row(page, run).getByRole("link").click();
    await page.locator('#run-charts [data-chart="loss"]').waitFor(SOON);
    await pages.check_rules(page);
    await pages.shoot(page, `dashboard-run-${view.width}-${view.scheme}`);
    assert.deepEqual(complaints, []);
    await page.close();
  });
}

test("the curves of a run are the rows of metrics.jsonl, and grow with it", async () => {
  const { page, complaints } = await opened();
  await row(page, run).getByRole("link").click();
  await page.locator('#run-charts [data-chart="loss"]').waitFor(SOON);
  const asked = async () => (await page.request.get(`${url}api/charts?run=${encodeURIComponent(run)}`)).json();
  const rows = pages.metrics(record);
  pages.check_curve(await asked(), "loss", "training", rows, "train", "loss");
  await pages.check_chart(page, rows);

  const last = rows.filter((one) => one.kind === "train").at(-1);
  const next = { ...last, step: last.step + 7, loss: 0.123456 };
  // A line that is being written is not read before it is whole.
  const line = JSON.stringify(next);
  fs.appendFileSync(record, line.slice(0, 20));
  pages.check_curve(await asked(), "loss", "training", rows, "train", "loss");
  fs.appendFileSync(record, `${line.slice(20)}\n`);
  const label = page.locator('#run-charts [data-chart="loss"] canvas[aria-label*="0.1235"]');
  await label.waitFor(SOON);
  pages.check_curve(await asked(), "loss", "training", [...rows, next], "train", "loss");
  assert.deepEqual(complaints, []);
  await page.close();
});

test("runs appear, half written ones too, and vanish", async () => {
  const { page, complaints } = await opened();
  const young = path.join(folder, "young");
  fs.mkdirSync(young);
  fs.writeFileSync(path.join(young, "metrics.jsonl"), '{"kind":"tra');
  await row(page, "young").waitFor(SOON);
  await row(page, "young").getByRole("link").click();
  await page.getByRole("heading", { name: "young" }).waitFor(SOON);
  await page.locator("#back").click();
  fs.rmSync(young, { recursive: true });
  await row(page, "young").waitFor({ state: "detached", ...SOON });
  assert.deepEqual(complaints, []);
  await page.close();
});

test("the list is sorted and filtered, and the address keeps what was chosen", async () => {
  const { page, complaints } = await opened();
  const all = await page.locator("#runs tbody tr").count();
  assert.ok(all >= 2);
  await pages.check_sorting(page, page.locator("#runs"), "best top-1");
  await page.getByLabel("filter").fill(run);
  const shown = page.locator("#runs tbody tr:visible");
  assert.ok((await shown.count()) < all);
  await row(page, run).getByRole("checkbox").check();
  await page.locator('#list-charts [data-chart="loss"]').waitFor(SOON);
  await page.reload();
  await row(page, run).waitFor(SOON);
  assert.equal(await page.getByLabel("filter").inputValue(), run);
  assert.ok((await shown.count()) < all);
  assert.ok(await row(page, run).getByRole("checkbox").isChecked());
  await page.locator('#list-charts [data-chart="loss"]').waitFor(SOON);
  assert.deepEqual(complaints, []);
  await page.close();
});

test("a tick that is taken away and set again draws the curves again", async () => {
  const { page, complaints } = await opened();
  const box = row(page, run).getByRole("checkbox");
  const chart = page.locator('#list-charts [data-chart="loss"]');
  for (let i = 0; i < 2; i += 1) {
    await box.check();
    await chart.waitFor(SOON);
    await box.uncheck();
    await chart.waitFor({ state: "detached", ...SOON });
  }
  assert.deepEqual(complaints, []);
  await page.close();
});

test("what does not change is left alone: rows in their order, settings that are read", async () => {
  const { page, complaints } = await opened();
  // Two looks of the page at its server.
  const moved = await page.evaluate(() => new Promise((done) => {
    let moved = 0;
    new MutationObserver((changes) => { moved += changes.length; })
      .observe(document.querySelector("#runs tbody"), { childList: true });
    setTimeout(() => done(moved), 4500);
  }));
  assert.equal(moved, 0, "rows are moved");

  await row(page, run).getByRole("link").click();
  const summary = page.locator("#run-settings summary");
  await summary.click();
  await summary.focus();
  const last = pages.metrics(record).filter((one) => one.kind === "train").at(-1);
  fs.appendFileSync(record, `${JSON.stringify({ ...last, step: last.step + 3, loss: 0.654321 })}\n`);
  await page.locator('#run-charts [data-chart="loss"] canvas[aria-label*="0.6543"]').waitFor(SOON);
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "SUMMARY", "the focus is lost");
  assert.deepEqual(complaints, []);
  await page.close();
});

test("by keyboard alone: a run is found, opened, and left", async () => {
  const { page } = await opened();
  for (let i = 0; i < 60; i += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => [document.activeElement.tagName, document.activeElement.textContent]);
    if (at[0] === "A" && at[1] === run) break;
  }
  await page.keyboard.press("Enter");
  await page.locator('#run-charts [data-chart="loss"]').waitFor(SOON);
  assert.equal(await page.evaluate(() => document.activeElement.id), "run-name", "the focus follows");
  await page.goBack();
  await page.locator("#runs").waitFor(SOON);
  await page.close();
});

test("the log of a run is shown and grows", async () => {
  const log = path.join(folder, run, "train.log");
  fs.appendFileSync(log, "a line of before\n");
  const { page } = await opened();
  await row(page, run).getByRole("link").click();
  await page.locator("#log").getByText("a line of before").waitFor(SOON);
  fs.appendFileSync(log, "a line <b>of now</b>\n");
  await page.locator("#log").getByText("a line <b>of now</b>").waitFor(SOON);
  await page.close();
});

test("many long runs are there within two seconds", { skip: !many }, async () => {
  const { page, complaints } = await pages.open(browser, "about:blank");
  const start = performance.now();
  await page.goto(many);
  await page.waitForFunction((n) => document.querySelectorAll("#runs tbody tr").length === n, Number(process.env.N_MANY));
  const seconds = (performance.now() - start) / 1000;
  console.log(`list of ${process.env.N_MANY} runs in the browser after ${seconds.toFixed(2)} s`);
  assert.ok(seconds < Number(process.env.MOST_SECONDS ?? 2), `${seconds} s`);
  assert.deepEqual(complaints.filter((text) => !text.startsWith("request")), []);
  await page.close();
});
