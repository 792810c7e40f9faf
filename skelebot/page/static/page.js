// Keep a page up to date, follow its logs and draw its figures. Nothing here is needed to read a page.
"use strict";

const EVERY = 1500; // milliseconds
const MOST_LINES = 5000;

const all = (what, within = document) => [...within.querySelectorAll(what)];

async function answer(address) {
  const response = await fetch(address, { cache: "no-store" });
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response;
}

function report(isGone) {
  document.getElementById("gone").hidden = !isGone;
}

// --- what the server has rendered anew ---

function inUse(part) {
  const selection = document.getSelection();
  return part.contains(document.activeElement) || (!selection.isCollapsed && part.contains(selection.anchorNode));
}

async function refresh() {
  const text = await (await answer(location.href)).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const list of all("[data-list]")) {
    const items = [...(fresh.getElementById(list.id)?.children ?? [])];
    for (const old of [...list.children]) if (!items.some((item) => item.id === old.id)) old.remove();
    for (const item of items) if (!document.getElementById(item.id)) list.append(document.importNode(item, true));
  }
  for (const part of all("[data-live]")) {
    const now = fresh.getElementById(part.id);
    if (now && !("live" in now.dataset)) delete part.dataset.live; // it will not change any more
    if (now && now.innerHTML !== part.served && !inUse(part)) {
      const open = all("details[open]", part).map((each) => each.id);
      const ticked = all("input:checked", part).map((each) => each.value);
      part.served = now.innerHTML;
      part.replaceChildren(...document.importNode(now, true).childNodes);
      for (const each of all("details", part)) each.open = open.includes(each.id);
      for (const each of all("input[type=checkbox]", part)) each.checked = ticked.includes(each.value);
    }
  }
}

// --- logs ---

async function follow(log) {
  if ("over" in log.dataset || log.isBusy) return;
  log.isBusy = true;
  try {
    const found = await (await answer(`${log.dataset.log}?from=${log.dataset.next}`)).json();
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const [lines, rest] = log.children;
    if (found.lines.length) {
      const text = lines.textContent + found.lines.map((line) => `${line}\n`).join("");
      lines.textContent = text.split("\n").slice(-MOST_LINES - 1).join("\n");
    }
    if (rest.textContent !== found.rest) rest.textContent = found.rest;
    log.dataset.next = found.next;
    if (found.over) log.dataset.over = "";
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  } finally {
    log.isBusy = false;
  }
}

// --- figures ---

function themed(layout, isSmall) {
  const style = getComputedStyle(document.body);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = (own) => ({ gridcolor: colour("--border"), zerolinecolor: colour("--border"), automargin: true, ...own });
  return {
    ...layout,
    autosize: true,
    margin: { l: 50, r: 15, t: 15, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--text"), size: isSmall ? 10 : 12 },
    hoverlabel: { bgcolor: colour("--raised"), font: { color: colour("--text") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    uirevision: "kept",
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
  };
}

async function draw(box) {
  if (box.isBusy || box.isOver || !window.Plotly) return;
  box.isBusy = true;
  try {
    const found = await (await answer(box.dataset.figures)).json();
    box.isOver = !found.live;
    const shown = found.figures.slice(0, box.classList.contains("small") ? 2 : undefined);
    for (const figure of shown) {
      let whole = [...box.children].find((each) => each.dataset.key === figure.key);
      if (!whole) {
        whole = document.createElement("figure");
        whole.dataset.key = figure.key;
        whole.append(document.createElement("figcaption"), document.createElement("div"));
        whole.lastChild.className = "drawing";
        box.append(whole);
      }
      whole.firstChild.textContent = figure.title;
      whole.figure = figure;
    }
    for (const old of [...box.children]) if (!shown.some((each) => each.key === old.dataset.key)) old.remove();
    await Promise.all([...box.children].map(show)); // once all have their places
  } finally {
    box.isBusy = false;
  }
}

function show(whole) {
  const { data, layout, title } = whole.figure;
  whole.lastChild.setAttribute("role", "img");
  whole.lastChild.setAttribute("aria-label", `${title}: ${data.map((each) => each.name ?? "").join(", ")}`);
  const isSmall = whole.parentElement.classList.contains("small");
  const options = { displayModeBar: false, responsive: true, showTips: false };
  return Plotly.react(whole.lastChild, data, themed(layout, isSmall), options);
}

// --- the table ---

function count() {
  const shown = document.getElementById("ticked");
  const ticked = all("[name=run]").filter((each) => each.checked || each.type === "hidden").length;
  if (shown) shown.textContent = ticked ? `${ticked} ticked` : "";
}

// --- from time to time ---

async function look() {
  if (document.hidden) return;
  try {
    if (document.querySelector("[data-live]")) await refresh();
    await Promise.all([...all("[data-log]").map(follow), ...all("[data-figures]").map(draw)]);
    report(false);
  } catch (error) {
    report(error instanceof TypeError); // of fetch, where nobody answers
  }
}

async function attend() {
  await look();
  setTimeout(attend, EVERY);
}

for (const log of all("[data-log]")) log.scrollTop = log.scrollHeight;
document.addEventListener("change", count);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all("figure[data-key]").forEach(show));
count();
attend();
