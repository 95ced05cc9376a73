// Keeps the page as Airflow's UI looks, fresh every few seconds, and its links usable inside Airflow's frame.
"use strict";

const EVERY = 5000; // ms

// --- light and dark: Airflow's UI keeps its choice under "theme"; a change there is an event here -------------------

function paint() {
  let theme = null;
  try { theme = localStorage.getItem("theme"); } catch { /* no storage here: as the system has it */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
paint();
addEventListener("storage", paint);

// --- links that leave the page: the frame may not navigate what is around it, but that may do so itself ---------------

addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-leave]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const outside = window.parent.document.createElement("a");
  outside.href = link.href;
  window.parent.document.body.append(outside);
  outside.click();
  outside.remove();
});

// --- fresh numbers, without taking anything away from who is typing ----------------------------------------------------

function busy(element) {
  const active = document.activeElement;
  if (active && active !== document.body && element.contains(active)) return true;
  if (element.querySelector("details[open]")) return true;
  return [...element.querySelectorAll("input")].some((input) =>
    input.type === "checkbox" || input.type === "radio" ? input.checked !== input.defaultChecked : input.value !== input.defaultValue);
}

function renew(old, fresh) {
  if (!busy(old)) {
    if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
    old.className = fresh.className;
    return;
  }
  if (!old.matches("tbody")) return; // what somebody is busy with stays as it is
  const rows = new Map([...fresh.children].map((row) => [row.id, row]));
  for (const row of [...old.children]) {
    const now = rows.get(row.id);
    rows.delete(row.id);
    if (busy(row)) continue;
    if (now) row.replaceWith(now); else row.remove();
  }
  old.append(...rows.values());
}

let problem = "";
function stale(text) {
  const place = document.getElementById("stale");
  if (!place || problem === text) return;
  problem = text;
  place.textContent = text;
  place.hidden = !text;
}

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
  } catch {
    stale("Airflow does not answer; what is shown may be old. 显示的内容可能已过时。");
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!answer.ok) {
    const message = page.querySelector(".notice")?.textContent ?? "Not available.";
    stale(`${message} What is shown may be old. 显示的内容可能已过时。`);
    return;
  }
  if (document.querySelector("[data-again]")) { location.reload(); return; }
  stale("");
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) renew(old, document.importNode(fresh, true));
  }
}

if (document.querySelector("[data-live], [data-again]")) setInterval(refresh, EVERY);
