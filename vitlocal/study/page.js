"use strict";
// Tables are whole without this; it turns their headings into buttons that sort.
const read = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = /^[-+]?\d+(\.\d+)?(?![^\s,±[])/.exec(text);  // "0.31 ± 0.02 [...]" sorts by 0.31
  return { text, number: number ? Number(number[0]) : null, nothing: text === "–" || text.startsWith("–,") };
};
const compare = (a, b) =>
  a.number !== null && b.number !== null ? a.number - b.number
    : a.text.localeCompare(b.text, undefined, { numeric: true });
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: read(row, column) }));
      rows.sort((a, b) =>
        a.value.nothing - b.value.nothing || sign * compare(a.value, b.value));  // unknown ones last
      table.tBodies[0].append(...rows.map(({ row }) => row));
    });
  });
}
