"use strict";

// A row, or the body of a block of rows, carries its keys: a number, a text, or null for missing.
function sortBy(table, column, ascending) {
  const bodies = [...table.tBodies];
  const blocks = bodies.some((body) => body.dataset.keys);
  const items = blocks ? bodies : [...bodies[0].rows];
  const sign = ascending ? 1 : -1;
  const key = new Map(items.map((item) => [item, JSON.parse(item.dataset.keys)[column]]));
  items.sort((left, right) => {
    const [a, b] = [key.get(left), key.get(right)];
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  });
  const parent = blocks ? table : bodies[0];
  parent.append(...items);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.querySelectorAll("th[data-column]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortBy(table, Number(head.dataset.column), ascending);
    });
  }
}

for (const filter of document.querySelectorAll(".filter")) {
  const items = [...document.querySelectorAll("[data-protocol]")];
  const counted = items.filter((item) => item.matches("tr.run"));
  const show = () => {
    const wanted = filter.querySelector("input:checked").value;
    for (const item of items) item.hidden = wanted !== "all" && item.dataset.protocol !== wanted;
    const shown = counted.filter((item) => !item.hidden).length;
    filter.querySelector("output").textContent = `${shown} of ${counted.length} runs`;
  };
  filter.addEventListener("change", show);
  filter.hidden = false;
  show();
}

// A link to a run shows what is folded there, also where the filter had hidden it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || !target.matches("article")) return;
  if (target.hidden) {
    const all = document.querySelector(".filter input[value=all]");
    all.checked = true;
    all.dispatchEvent(new Event("change", { bubbles: true }));
  }
  target.querySelector("details").open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();

const dialog = document.querySelector("dialog");
if (dialog) {
  const [large, caption] = [dialog.querySelector("img"), dialog.querySelector("span")];
  for (const small of document.querySelectorAll("figure img")) {
    const button = document.createElement("button");
    button.type = "button";
    small.replaceWith(button);
    button.append(small);
    button.addEventListener("click", () => {
      large.src = small.src;
      large.alt = small.alt;
      caption.textContent = small.alt;
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target === large) dialog.close();
  });
}
