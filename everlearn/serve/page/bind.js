// Puts a view into the page: only what changed is touched, so that a selection, the focus and an open menu stay.

export const FIRST = { alarms: 5, decisions: 6, versions: 20 };
const open = new Set(); // lists that are shown whole

const byId = (id) => document.getElementById(id);

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function shown(element, on) {
  if (element.hidden === on) element.hidden = !on;
}

function mark(element, name, value) {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

export function fill(view) {
  document.title = view.title;
  mark(document.body, "tone", view.tone);
  for (const element of document.querySelectorAll("[data-text]")) text(element, view[element.dataset.text] ?? "");
  for (const element of document.querySelectorAll("[data-show]")) shown(element, Boolean(view[element.dataset.show]));
  for (const element of document.querySelectorAll("[data-learning]")) shown(element, view.learning === element.dataset.learning);
  for (const list of document.querySelectorAll("[data-list]")) rows(list, view[list.dataset.list]);
}

export function more(name, view) {
  if (!open.delete(name)) open.add(name);
  fill(view);
}

function rows(list, items) {
  const name = list.dataset.list;
  const short = open.has(name) ? items : items.slice(0, FIRST[name]);
  const have = new Map();
  for (const row of [...list.children]) {
    if (have.has(row.dataset.item)) row.remove();
    else have.set(row.dataset.item, row);
  }
  let at = list.firstElementChild;
  for (const item of short) {
    let row = have.get(item.key);
    if (row) have.delete(item.key);
    else row = byId(`${name}-item`).content.firstElementChild.cloneNode(true);
    fillRow(row, item);
    if (row === at) at = at.nextElementSibling;
    else list.insertBefore(row, at);
  }
  for (const row of have.values()) row.remove();
  for (const element of document.querySelectorAll(`[data-none="${name}"]`)) shown(element, items.length === 0);
  for (const element of document.querySelectorAll(`[data-full="${name}"]`)) shown(element, items.length > 0);
  const button = document.querySelector(`[data-more="${name}"]`);
  if (button) {
    shown(button, items.length > FIRST[name]);
    text(button, open.has(name) ? `Show the newest ${FIRST[name]}` : `Show all ${items.length}`);
    button.setAttribute("aria-expanded", String(open.has(name)));
  }
}

function fillRow(row, item) {
  mark(row, "item", item.key);
  if (item.state !== undefined) mark(row, "state", item.state);
  if (item.tone !== undefined) mark(row, "tone", item.tone);
  for (const element of row.querySelectorAll("[data-field]")) {
    text(element, String(item[element.dataset.field] ?? ""));
    if (element.dataset.stamp) stamp(element, item[element.dataset.stamp]);
  }
  for (const element of row.querySelectorAll("[data-field-show]")) shown(element, Boolean(item[element.dataset.fieldShow]));
}

export function clock(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function stamp(element, seconds) {
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return;
  const iso = date.toISOString();
  if (element.dateTime !== iso || !element.title) {
    element.dateTime = iso;
    element.title = clock(seconds);
  }
}
