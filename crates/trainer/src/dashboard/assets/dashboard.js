"use strict";
// The dashboard: asks its server for the runs and shows them. What is shown, sorted and ticked stands in the address
// behind #, so that it is there again when the page is loaded anew.
(() => {
  const POLL_MS = 2000;
  const MOST_LOG = 400000;
  const about = bn.data("about");
  const $ = (id) => document.getElementById(id);
  const table = $("runs"), body = table.tBodies[0];
  const keys = [...table.tHead.rows[0].cells].map((head) => head.dataset.key);

  // ---- What the address says

  const read_address = () => {
    const parameters = new URLSearchParams(location.hash.slice(1));
    return {
      run: parameters.get("run"),
      ticked: parameters.getAll("ticked").slice(0, about.most_runs).map((run) => run || null),
      filter: parameters.get("filter") ?? "",
      sort: parameters.get("sort") ?? "started",
      descending: (parameters.get("order") ?? "falling") === "falling",
    };
  };
  const address_of = (of) => {
    const parameters = new URLSearchParams();
    if (of.run != null) parameters.set("run", of.run);
    for (const run of of.ticked) parameters.append("ticked", run ?? "");
    if (of.filter) parameters.set("filter", of.filter);
    if (of.sort !== "started" || !of.descending) {
      parameters.set("sort", of.sort);
      parameters.set("order", of.descending ? "falling" : "rising");
    }
    return "#" + parameters;
  };
  let shown = read_address();
  // A run keeps its place in this list, and so its colour, until its tick is taken away.
  let ticked = shown.ticked;
  const keep_address = () => history.replaceState(null, "", address_of({ ...shown, ticked }));

  // ---- Numbers as a person reads them

  const duration = (seconds) => {
    const s = Math.max(0, Math.round(seconds)), two = (n) => String(Math.floor(n)).padStart(2, "0");
    if (s < 60) return `${s}s`;
    if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
    if (s < 86400) return `${Math.floor(s / 3600)}h${two((s % 3600) / 60)}m`;
    return `${Math.floor(s / 86400)}d${two((s % 86400) / 3600)}h`;
  };
  const now = () => Date.now() / 1000;
  const date = (seconds) => {
    const at = new Date(seconds * 1000), two = (n) => String(n).padStart(2, "0");
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
  };
  const size = (bytes) => bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
  const ends = (at) => at > now() ? `in ${duration(at - now())}` : "soon";
  const epochs = (row) => `${bn.number(Math.round(row.epoch * 100) / 100)} / ${bn.number(row.epochs)}`;
  const texts = {
    best_top1: (row) => bn.number(row.best_top1, "percent"),
    loss: (row) => bn.number(row.loss),
    epoch: (row) => row.epochs == null ? "–" : epochs(row),
    images_per_second: (row) => bn.number(row.images_per_second),
    ends_at: (row) => row.ends_at == null ? "–" : ends(row.ends_at),
    started: (row) => row.started == null ? "–" : date(row.started),
    updated: (row) => row.updated == null ? "–" : row.state === "training" ? `${duration(now() - row.updated)} ago` : date(row.updated),
    bytes: (row) => size(row.bytes),
    preset: (row) => row.preset || "–",
  };
  const set_text = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  // ---- Questions to the server; one that has the same answer as before is answered with `null`

  const tags = new Map();
  const ask = async (path, parameters = [], slot = path) => {
    const url = parameters.length ? `${path}?${new URLSearchParams(parameters)}` : path;
    const known = tags.get(slot);
    const headers = known?.url === url ? { "If-None-Match": known.tag } : {};
    const response = await fetch(url, { headers, cache: "no-store" });
    if (response.status === 304) return null;
    if (!response.ok) throw Object.assign(new Error(await response.text()), { status: response.status });
    tags.set(slot, { url, tag: response.headers.get("ETag") });
    return response.json();
  };

  // ---- The list

  let rows = [];
  const elements = new Map();

  const tick = (run, is_on) => {
    const free = ticked.indexOf(null) >= 0 ? ticked.indexOf(null) : ticked.length;
    const is_full = is_on && free >= about.most_runs;
    set_text($("news"), is_full ? `– at most ${about.most_runs} runs are drawn side by side` : "");
    if (is_full) return show_list();
    if (is_on) ticked[free] = run;
    else ticked = ticked.map((known) => (known === run ? null : known));
    while (ticked.length && ticked[ticked.length - 1] === null) ticked.pop();
    keep_address();
    show_list();
    poll();
  };

  const make_row = (run) => {
    const box = bn.element("input", { type: "checkbox", "aria-label": `draw the curves of ${run}` });
    box.addEventListener("change", () => tick(run, box.checked));
    const link = bn.element("a", { href: "#" }, run);
    const reason = bn.element("small", { class: "reason" });
    const state = bn.element("span", {});
    const bar = bn.element("progress", { max: 1, "aria-hidden": "true" });
    const progress = bn.element("span", {});
    const inside = { run: [link, reason], state: [state], epoch: [progress, bar] };
    const cells = new Map(keys.map((key) => {
      const is_number = !["run", "state", "preset", undefined].includes(key);
      return [key, bn.element("td", { class: is_number ? "number" : null }, ...(key ? inside[key] ?? [] : [box]))];
    }));
    return { tr: bn.element("tr", {}, ...cells.values()), cells, box, link, reason, state, bar, progress };
  };

  const fill_row = (parts, row) => {
    const { cells, box, link, reason, state, bar, progress } = parts;
    const place = ticked.indexOf(row.run);
    box.checked = place >= 0;
    box.style.accentColor = place >= 0 ? `var(--c${place})` : "";
    link.href = address_of({ ...shown, ticked, run: row.run });
    state.className = `badge ${row.state}`;
    set_text(state, row.state);
    set_text(reason, row.reason ?? "");
    reason.hidden = !row.reason;
    reason.title = row.reason ?? "";
    for (const [key, text] of Object.entries(texts)) {
      const cell = cells.get(key);
      set_text(key === "epoch" ? progress : cell, text(row));
      cell.dataset.value = row[key] ?? "";
    }
    bar.hidden = row.steps == null;
    bar.value = row.steps ? row.step / row.steps : 0;
    if (row.ends_at != null) cells.get("ends_at").title = `at ${date(row.ends_at)}, if it does not stop early`;
  };

  const show_list = () => {
    const focus = document.activeElement;
    const present = new Set(rows.map((row) => row.run));
    for (const [run, { tr }] of elements) {
      if (present.has(run)) continue;
      tr.remove();
      elements.delete(run);
    }
    for (const row of rows) {
      if (!elements.has(row.run)) {
        elements.set(row.run, make_row(row.run));
        body.append(elements.get(row.run).tr);
      }
      fill_row(elements.get(row.run), row);
    }
    bn.sort(table);
    bn.filter(table);
    // A row that moves loses the focus.
    if (focus !== document.activeElement && body.contains(focus)) focus.focus({ preventScroll: true });
    $("empty").hidden = rows.length > 0;
    $("table").hidden = rows.length === 0;
    $("clear").hidden = !ticked.some(Boolean);
  };

  // ---- Curves

  const drawings = new Map();
  const erase = (host) => {
    drawings.get(host.id)?.destroy();
    drawings.delete(host.id);
  };
  // Nothing is drawn any more, and the next answer is drawn whatever it is.
  const clear = (host, slot) => {
    erase(host);
    tags.delete(slot);
  };
  const draw = (host, data) => {
    if (data.charts.length === 0) {
      erase(host);
    } else if (drawings.has(host.id)) {
      drawings.get(host.id).update(data);
    } else {
      drawings.set(host.id, bn.charts(host, data));
    }
  };

  const ask_list_charts = async () => {
    const places = ticked.flatMap((run, place) => (run ? [place] : []));
    $("curves").hidden = places.length === 0;
    if (places.length === 0) return clear($("list-charts"), "list");
    const found = await ask("api/charts", places.map((place) => ["run", ticked[place]]), "list");
    if (!found) return;
    $("reasons").replaceChildren(...found.reasons.flatMap((reason, i) => (reason ? [notice(`${found.runs[i]}: ${reason}`)] : [])));
    // One run has the colours of its curves; several have one each, that of their place.
    if (places.length > 1) {
      found.runs = ticked.map((run) => run ?? "");
      for (const chart of found.charts) for (const curve of chart.curves) curve.run = places[curve.run];
    }
    draw($("list-charts"), found);
  };

  // ---- One run

  let log = null;
  const notice = (text, kind = "") => bn.element("p", { class: `notice ${kind}` }, text);
  const number = (name, value, more = "") =>
    bn.element("div", {}, bn.element("dt", {}, name), bn.element("dd", {}, value, bn.element("small", {}, more)));

  const interval = (of) => of.interval ? `95 %: ${(100 * of.interval[0]).toFixed(1)} to ${(100 * of.interval[1]).toFixed(1)}` : "";
  const show_numbers = ({ row, checkpoint }) => {
    const best = checkpoint?.best, last = checkpoint?.last;
    const of_epoch = (of) => [of.epoch == null ? "" : `epoch ${of.epoch}`, interval(of)].filter(Boolean).join(", ");
    const all = [
      number("state", bn.element("span", { class: `badge ${row.state}` }, row.state), row.preset),
      number("epoch", texts.epoch(row), row.steps == null ? "" : `step ${bn.number(row.step)} of ${bn.number(row.steps)}`),
    ];
    if (best) all.push(number("best top-1", bn.number(best.top1, "percent"), of_epoch(best)));
    if (last && last.step !== best?.step) all.push(number("last top-1", bn.number(last.top1, "percent"), of_epoch(last)));
    if (last && checkpoint.classes > 5) all.push(number("last top-5", bn.number(last.top5, "percent"), `of ${bn.number(last.images)} images`));
    if (last?.loss != null) all.push(number("validation loss", bn.number(last.loss)));
    if (row.loss != null) all.push(number("training loss", bn.number(row.loss)));
    if (row.images_per_second != null) all.push(number("speed", `${bn.number(row.images_per_second)}/s`, "images"));
    if (row.ends_at != null) all.push(number("ends", ends(row.ends_at), date(row.ends_at)));
    if (checkpoint) all.push(number("time so far", duration(checkpoint.seconds), row.started == null ? "" : `began ${date(row.started)}`));
    $("run-numbers").replaceChildren(...all);
  };

  const show_settings = ({ settings, settings_error }) => {
    if (!settings) return $("run-settings").replaceChildren(notice(settings_error ?? "unknown"));
    const head = `${settings.is_known ? "Preset" : "Nearest preset"}: ${settings.preset}.`;
    const parts = [bn.element("p", {}, settings.changes.length ? `${head} These settings differ from it:` : `${head} No setting differs from it.`)];
    if (settings.changes.length) {
      const line = (tag, cells) => bn.element("tr", {}, ...cells.map((cell) => bn.element(tag, {}, tag === "th" ? cell : bn.element("code", {}, cell))));
      parts.push(bn.element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings that differ from the preset" },
        bn.element("table", {}, bn.element("thead", {}, line("th", ["setting", "preset", "this run"])),
          bn.element("tbody", {}, ...settings.changes.map((change) => line("td", change))))));
    }
    const is_open = $("run-settings").querySelector("details")?.open ?? false;
    parts.push(bn.element("details", { open: is_open }, bn.element("summary", {}, "All settings"), bn.element("pre", { class: "commands" }, settings.toml)));
    $("run-settings").replaceChildren(...parts);
  };

  let settings_shown = null;
  const show_details = (found) => {
    const { row, diverged, commands } = found;
    set_text($("run-name"), found.folder);
    const notes = [];
    if (row.reason) notes.push(notice(row.reason, row.state === "damaged" ? "alarm" : ""));
    if (diverged) notes.push(notice(diverged, "alarm"));
    $("run-notes").replaceChildren(...notes);
    show_numbers(found);
    // What is read or selected there stays as long as it says the same.
    const settings = JSON.stringify([found.settings, found.settings_error]);
    if (settings !== settings_shown) show_settings(found);
    settings_shown = settings;
    set_text($("run-commands"), commands.map(([what, command]) => `# ${what}\n${command}`).join("\n"));
  };

  const ask_log = async (run) => {
    const part = await ask("api/log", [["run", run], ...(log ? [["file", log.file], ["from", log.to]] : [])]);
    if (!part || run !== shown.run) return;
    const place = $("log");
    // Whoever scrolled up to read stays there.
    const is_at_end = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
    if (!part.goes_on) set_text(place, part.text || "The run has said nothing yet.");
    else if (part.text) place.append(part.text);
    if (place.textContent.length > MOST_LOG) set_text(place, place.textContent.slice(-MOST_LOG / 2));
    log = part;
    if (is_at_end) place.scrollTop = place.scrollHeight;
  };

  let details = null;
  const ask_run = async (run) => {
    try {
      const found = await ask("api/run", [["run", run]]);
      if (run !== shown.run) return;
      details = found ?? details;
      if (found) show_details(found);
      else show_numbers(details);
      const charts = await ask("api/charts", [["run", run]], "run");
      if (charts && run === shown.run) {
        draw($("run-charts"), charts);
        set_text($("no-curves"), charts.reasons[0] ?? "Nothing is recorded yet.");
        $("no-curves").hidden = charts.charts.length > 0;
      }
      await ask_log(run);
    } catch (error) {
      if (error.status !== 404) throw error;
      // A run that comes back is news, also where it is as it was.
      tags.delete("api/run");
      $("run-notes").replaceChildren(notice(error.message, "alarm"));
    }
  };

  // ---- The rounds

  let answered = null, is_asking = false, is_due = false, timer = null;
  const show_state = () => {
    const age = answered == null ? null : Math.round(now() - answered);
    set_text($("state"), age == null ? "asking for the runs" : age < 1 ? "up to date" : `updated ${duration(age)} ago`);
  };

  const poll = async () => {
    if (is_asking) {
      is_due = true;
      return;
    }
    clearTimeout(timer);
    is_asking = true;
    is_due = false;
    try {
      const found = await ask("api/runs");
      if (found) {
        rows = found.runs;
        $("notes").replaceChildren(...found.notes.map((text) => notice(text)));
      }
      show_list();
      if (shown.run != null) await ask_run(shown.run);
      else await ask_list_charts();
      answered = now();
      document.body.classList.remove("lost");
      if ($("news").dataset.lost) set_text($("news"), "");
      delete $("news").dataset.lost;
    } catch (error) {
      const text = error instanceof TypeError ? "the program that served this page has ended" : error.message;
      set_text($("news"), `– ${text}`);
      $("news").dataset.lost = "1";
      document.body.classList.add("lost");
    }
    is_asking = false;
    show_state();
    if (!document.hidden) timer = setTimeout(poll, is_due ? 0 : POLL_MS);
  };

  const show_view = () => {
    const is_run = shown.run != null;
    $("list-view").hidden = is_run;
    $("run-view").hidden = !is_run;
    document.title = is_run ? `${shown.run}: run` : `${about.dir}: runs`;
    $("back").href = address_of({ ...shown, ticked, run: null });
    log = details = settings_shown = null;
    clear($("run-charts"), "run");
    for (const slot of ["api/run", "api/log"]) tags.delete(slot);
    for (const id of ["run-numbers", "run-notes", "run-settings", "run-commands", "log"]) $(id).replaceChildren();
    $("no-curves").hidden = true;
    if (!is_run) return;
    set_text($("run-name"), shown.run);
    scrollTo(0, 0);
    $("run-name").focus({ preventScroll: true });
  };

  const mark_order = () => {
    const column = Math.max(keys.indexOf(shown.sort), 1);
    table.bnOrder = { column, descending: shown.descending };
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", shown.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  bn.tables();
  $("filter").value = shown.filter;
  $("filter").addEventListener("input", () => {
    shown.filter = $("filter").value;
    keep_address();
  });
  table.tHead.addEventListener("click", () => {
    const { column, descending } = table.bnOrder;
    Object.assign(shown, { sort: keys[column], descending });
    keep_address();
  });
  $("clear").addEventListener("click", () => {
    ticked = [];
    keep_address();
    show_list();
    poll();
    $("filter").focus();
  });
  addEventListener("hashchange", () => {
    // The link that skips to the content.
    if (/^#\w+$/.test(location.hash)) return keep_address();
    const before = shown.run;
    shown = read_address();
    ticked = shown.ticked;
    $("filter").value = shown.filter;
    mark_order();
    show_view();
    if (before != null && shown.run == null) elements.get(before)?.link.focus();
    poll();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  setInterval(show_state, 1000);
  mark_order();
  show_view();
  poll();
})();
