// What the tests of all pages share: a browser, what a page complains about, and rules that every page keeps.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const CANDIDATES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

// A desk and a telephone, light and dark.
export const VIEWS = [
  { width: 1280, height: 900, scheme: "light" },
  { width: 1280, height: 900, scheme: "dark" },
  { width: 390, height: 844, scheme: "light" },
  { width: 390, height: 844, scheme: "dark" },
];

export async function browser() {
  const executablePath = CANDIDATES.find((candidate) => candidate && fs.existsSync(candidate));
  assert.ok(executablePath, "no Chromium; tools/browser/install.sh installs it, CHROMIUM=PATH names it");
  // A browser of its own that asks nobody on the network for anything.
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath, args });
}

// Opens `url`. Whatever the page logs as a warning or an error, throws, or asks of another server is in
// `complaints`.
export async function open(of, url, view = VIEWS[0]) {
  const page = await of.newPage({ viewport: { width: view.width, height: view.height }, colorScheme: view.scheme });
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  const origin = new URL(url).origin;
  page.on("request", (request) => {
    const asked = request.url();
    if (asked !== url && !asked.startsWith("data:") && (origin === "null" || !asked.startsWith(origin))) {
      complaints.push(`request: ${asked}`);
    }
  });
  await page.goto(url);
  return { page, complaints };
}

// No rule of WCAG 2.1 A and AA that axe can check is broken, and nothing sticks out of the window.
export async function check_rules(page) {
  const { width, inner } = await page.evaluate(() => ({
    width: document.documentElement.scrollWidth, inner: window.innerWidth,
  }));
  assert.ok(width <= inner, `the page is ${width} px wide in a window of ${inner}`);
  // `evaluate` runs past the page's policy, which forbids script elements from elsewhere.
  await page.evaluate(fs.readFileSync(AXE, "utf8"));
  const { violations } = await page.evaluate(() =>
    axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  const told = violations.map(({ id, help, nodes }) =>
    `${id}: ${help}\n${nodes.slice(0, 3).map((node) => `  ${node.html.slice(0, 200)}\n  ${node.failureSummary}`).join("\n")}`);
  assert.equal(told.length, 0, told.join("\n"));
}

// Keeps a picture of the page in the folder BNINCEPTION_SHOTS, if it is named.
export async function shoot(page, name, options = {}) {
  const folder = process.env.BNINCEPTION_SHOTS;
  if (!folder) return;
  fs.mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true, ...options });
}

// The rows of a metrics.jsonl, whole lines only.
export function metrics(file) {
  const text = fs.readFileSync(file, "utf8");
  return text.slice(0, text.lastIndexOf("\n") + 1).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

// Curves of role `role` in chart `id` are, number by number, field `field` of the rows of kind `kind`.
export function check_curve(data, id, role, rows, kind, field, run = 0) {
  const chart = data.charts.find((candidate) => candidate.id === id);
  assert.ok(chart, `there is no chart ${id}`);
  const curve = chart.curves.find((candidate) => candidate.role === role && candidate.run === run);
  assert.ok(curve, `chart ${id} has no curve ${role}`);
  const of_kind = rows.filter((row) => row.kind === kind);
  assert.deepEqual(curve.step, of_kind.map((row) => row.step), `${id}: steps`);
  assert.deepEqual(curve.y, of_kind.map((row) => row[field]), `${id}: ${field}`);
}

// The charts of a page: the numbers beside the names in the legend follow the pointer, a drag zooms, and the
// keyboard does the same.
export async function check_chart(page, rows) {
  const chart = page.locator('[data-chart="loss"]');
  const plot = chart.locator(".plot");
  const over = chart.locator(".u-over");
  await plot.scrollIntoViewIfNeeded();
  const training = rows.filter((row) => row.kind === "train");
  const number = (text) => Number(text.replaceAll(",", ""));
  const close = (told, value) =>
    assert.ok(Math.abs(number(told) - value) <= 5e-4 * Math.abs(value) + 1e-9, `told ${told}, recorded ${value}`);

  // By pointer: at the right end stands the last row.
  const box = await over.boundingBox();
  await page.mouse.move(box.x + box.width - 1, box.y + box.height / 2);
  const value = (place) => chart.locator(".u-legend .u-series").nth(place).locator(".u-value").innerText();
  const last = Math.max(...rows.filter((row) => ["train", "eval"].includes(row.kind)).map((row) => row.step));
  close(await value(0), last);
  close(await value(1), training.at(-1).loss);

  // By keyboard: from the first point on.
  await page.mouse.move(0, 0);
  await plot.focus();
  await page.keyboard.press("Home");
  const said = chart.locator("[aria-live]");
  const told = await said.innerText();
  close(told.match(/^step ([\d,.]+):/)[1], training[0].step);
  close(told.match(/training ([\d,.]+)/)[1], training[0].loss);

  const whole = page.getByRole("button", { name: "Whole range" }).first();
  assert.ok(await whole.isDisabled());
  if (training.length > 4) {
    await page.keyboard.press("+");
    assert.ok(await whole.isEnabled(), "+ does not zoom");
    await page.keyboard.press("0");
    assert.ok(await whole.isDisabled(), "0 does not show all");
    await page.mouse.move(box.x + box.width * 0.2, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.6, box.y + 60, { steps: 5 });
    await page.mouse.up();
    assert.ok(await whole.isEnabled(), "a drag does not zoom");
    await whole.click();
    assert.ok(await whole.isDisabled());
  }
}

// Every sortable table is sorted by a click on a head, the other way by a second one, by keyboard too.
export async function check_sorting(page, table, head) {
  const button = table.locator("thead").getByRole("button", { name: head, exact: true });
  const column = await button.evaluate((of) => of.closest("th").cellIndex);
  const values = () => table.locator("tbody tr:not([hidden])").evaluateAll((rows, at) =>
    rows.map((row) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim()), column);
  const numbers = (list) => list.map((text) => text.replace(/[, %]/g, "")).filter((text) => text !== "" && !Number.isNaN(Number(text))).map(Number);
  await button.focus();
  await page.keyboard.press("Enter");
  const order = await button.evaluate((of) => of.closest("th").getAttribute("aria-sort"));
  const first = numbers(await values());
  const sorted = [...first].sort((a, b) => (order === "ascending" ? a - b : b - a));
  assert.deepEqual(first, sorted, `sorted by ${head}, ${order}`);
  await button.click();
  assert.deepEqual(numbers(await values()), sorted.reverse());
}
