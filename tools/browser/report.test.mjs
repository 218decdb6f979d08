// The page of `report`. REPORT is a page of one run, METRICS its metrics.jsonl, TOP1 the top-1 that `eval`
// gives its best checkpoint; REPORTS is a page of several runs.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import * as pages from "./pages.mjs";

const one = pathToFileURL(process.env.REPORT).href;
const several = pathToFileURL(process.env.REPORTS).href;
const rows = pages.metrics(process.env.METRICS);
const curves = (page) => page.evaluate(() => bn.data("charts-data"));
let browser;
before(async () => { browser = await pages.browser(); });
after(async () => { await browser?.close(); });

for (const view of pages.VIEWS) {
  test(`a page keeps the rules at ${view.width} px, ${view.scheme}`, async () => {
    for (const [name, url] of [["report", one], ["reports", several]]) {
      const { page, complaints } = await pages.open(browser, url, view);
      await pages.check_rules(page);
      await pages.shoot(page, `${name}-${view.width}-${view.scheme}`);
      assert.deepEqual(complaints, []);
      await page.close();
    }
  });
}

test("the curves are the rows of metrics.jsonl", async () => {
  const { page, complaints } = await pages.open(browser, one);
  const data = await curves(page);
  assert.ok(rows.length > 0);
  for (const [id, field] of [["loss", "loss"], ["top1", "top1"]]) {
    pages.check_curve(data, id, "training", rows, "train", field);
    pages.check_curve(data, id, "validation", rows, "eval", field);
  }
  for (const id of ["lr", "grad_norm", "images_per_second", "data_wait"]) {
    pages.check_curve(data, id, "value", rows, "train", id);
  }
  const drawn = await page.locator("figure.chart").count();
  assert.equal(drawn, data.charts.length);
  await pages.check_chart(page, rows);
  assert.deepEqual(complaints, []);
  await page.close();
});

test("whole numbers are written to their last digit, others to four", async () => {
  const { page } = await pages.open(browser, one);
  const written = (value, format) => page.evaluate(([v, f]) => bn.number(v, f), [value, format]);
  for (const [value, text] of [[118365, "118,365"], [12345678, "12,345,678"], [0, "0"], [-1234, "-1,234"],
    [0.123456, "0.1235"], [212.44, "212.4"], [0.0000123, "1.23e-5"], [2.5e9 + 0.5, "2.50e+9"], [null, "–"]]) {
    assert.equal(await written(value), text);
  }
  assert.equal(await written(0.98765, "percent"), "98.77 %");
  await page.close();
});

test("the result stands first and is that of eval", async () => {
  const { page } = await pages.open(browser, one);
  const first = page.locator("main section").first();
  assert.equal(await first.getAttribute("id"), "result");
  const numbers = await first.locator(".numbers").innerText();
  const told = `${(100 * Number(process.env.TOP1)).toFixed(2)} %`;
  assert.ok(numbers.includes(told), `no ${told} in ${numbers}`);
  await page.close();
});

test("tables are sorted by pointer and keyboard", async () => {
  const { page } = await pages.open(browser, one);
  const table = page.locator("#classes table.sortable").first();
  await pages.check_sorting(page, table, "recall");
  await page.close();
});

test("every picture is there and says what it shows", async () => {
  const { page } = await pages.open(browser, one);
  const pictures = await page.locator("img").evaluateAll((all) =>
    all.map((one) => ({ alt: one.alt, width: one.naturalWidth, inline: one.src.startsWith("data:image/") })));
  assert.ok(pictures.length >= 8, `${pictures.length} pictures`);
  for (const picture of pictures) assert.ok(picture.alt !== "" && picture.width > 0 && picture.inline, JSON.stringify(picture));
  await page.close();
});

test("several runs share charts, a colour each", async () => {
  const { page, complaints } = await pages.open(browser, several);
  const data = await curves(page);
  assert.ok(data.runs.length >= 2);
  const of_loss = data.charts.find((chart) => chart.id === "loss").curves;
  assert.deepEqual([...new Set(of_loss.map((curve) => curve.run))], data.runs.map((_, run) => run));
  const legend = await page.locator('[data-chart="loss"] .u-legend').innerText();
  for (const run of data.runs) assert.ok(legend.includes(run), `no ${run} in ${legend}`);
  assert.deepEqual(complaints, []);
  await page.close();
});

test("what is smoothed lies between what was recorded, which stays", async () => {
  const { page, complaints } = await pages.open(browser, one);
  const names = () => page.locator('[data-chart="lr"] .u-legend .u-label').allInnerTexts();
  const before = await names();
  await page.getByLabel("Smoothing").fill("0.6");
  assert.equal((await names()).length, before.length + 1);
  await page.getByText("epochs", { exact: true }).click();
  assert.equal((await names())[0], "epoch");
  assert.deepEqual(complaints, []);
  await page.close();
});
