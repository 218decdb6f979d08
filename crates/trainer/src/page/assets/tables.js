"use strict";
// Tables of class `sortable` are sorted by their heads; one with `data-filter="ID"` shows the rows that hold
// the text of the input with this id. A cell with `data-value` is sorted by that.

bn.sort = (table) => {
  const { column, descending } = table.bnOrder ?? {};
  if (column == null) return;
  const key = (row) => {
    const cell = row.cells[column];
    const written = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    const text = ["-", "–"].includes(written) ? "" : written;
    const number = text === "" ? NaN : Number(text.replace(/[, %]/g, ""));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    // What has no value comes last in both directions.
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });
    return descending ? -order : order;
  };
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => compare(a, b));
  // A row that is moved loses the focus, what is selected in it, and a click that has begun.
  if (rows.some(([, row], place) => row !== body.rows[place])) body.append(...rows.map(([, row]) => row));
};

bn.filter = (table) => {
  const input = document.getElementById(table.dataset.filter ?? "");
  if (!input) return;
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  const count = document.querySelector(`output[for="${CSS.escape(input.id)}"]`);
  if (count) count.textContent = words.length === 0 ? "" : `${shown} of ${table.tBodies[0].rows.length}`;
};

bn.tables = (root = document) => {
  for (const table of root.querySelectorAll("table.sortable")) {
    if (table.bnOrder) continue;
    table.bnOrder = {};
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (head.classList.contains("fixed")) return;
      const button = bn.element("button", { type: "button" }, ...head.childNodes);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        // Numbers are looked at from the greatest, names from A.
        const first = head.classList.contains("number");
        const is_again = table.bnOrder.column === column;
        const descending = is_again ? !table.bnOrder.descending : first;
        table.bnOrder = { column, descending };
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        bn.sort(table);
      });
    });
    const input = document.getElementById(table.dataset.filter ?? "");
    input?.addEventListener("input", () => bn.filter(table));
  }
};
