// History, pages of a document, and colours.
import { pageThumbnail } from "./files.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
const MOST_PAGES = 500;

/** @param reopen Takes a kept conversation. @param openPage Takes a page. @param current Returns the conversation. */
export function addDialogs({ reopen, openPage, current }) {
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  $("open-history").addEventListener("click", () => showHistory(reopen));
  $("forget").addEventListener("click", async () => {
    await store.forgetAll();
    $("history-list").replaceChildren();
  });
  $("pages").addEventListener("click", () => showPages(current(), openPage));
  addThemes();
}

async function showHistory(reopen) {
  let kept = [];
  try {
    kept = await store.all();
  } catch {
    $("history-note").textContent = "This browser keeps no history, as private windows do.";
  }
  $("forget").disabled = !kept.length;
  $("history-list").replaceChildren(...kept.map((one) => {
    const words = `${one.name}: ${one.turns[0].question}`;
    return entry(one.thumbnail, words, new Date(one.time).toLocaleString(), () => {
      $("history").close();
      reopen(one);
    });
  }));
  $("history").showModal();
}

async function showPages({ uri, page, pages }, openPage) {
  const entries = Array.from({ length: Math.min(pages, MOST_PAGES) }, (_, index) => {
    const item = entry("", `Page ${index + 1}`, "", () => {
      $("page-picker").close();
      openPage(index + 1);
    });
    if (index + 1 === (page ?? 1)) item.firstChild.setAttribute("aria-current", "page");
    return item;
  });
  $("page-list").replaceChildren(...entries);
  $("page-picker").showModal();
  // Only pages that come into sight are drawn, one after the other.
  const seen = new IntersectionObserver((changes) => {
    for (const { target } of changes.filter((change) => change.isIntersecting)) {
      seen.unobserve(target);
      queue = queue.then(() => drawPage(target, uri, entries.indexOf(target) + 1));
    }
  }, { root: $("page-picker") });
  let queue = Promise.resolve();
  for (const item of entries) seen.observe(item);
  $("page-picker").addEventListener("close", () => seen.disconnect(), { once: true });
}

async function drawPage(item, uri, page) {
  if (!$("page-picker").open) return;
  try {
    item.querySelector("img").src = await pageThumbnail(uri, page);
  } catch (error) {
    item.querySelector("small").textContent = error.message;
  }
}

function entry(picture, words, more, onClick) {
  const item = document.createElement("li");
  const button = item.appendChild(document.createElement("button"));
  button.type = "button";
  const image = button.appendChild(document.createElement("img"));
  image.alt = "";
  if (picture) image.src = picture;
  button.appendChild(document.createElement("span")).textContent = words;
  button.appendChild(document.createElement("small")).textContent = more;
  button.addEventListener("click", onClick);
  return item;
}

function addThemes() {
  const themes = ["system", "light", "dark"];
  let theme = localStorage.getItem("slime-theme") ?? "system";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    $("theme").setAttribute("aria-label", theme === "system" ? "Colours: as the system" : `Colours: ${theme}`);
    $("theme").title = $("theme").getAttribute("aria-label");
  };
  $("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    localStorage.setItem("slime-theme", theme);
    show();
  });
  show();
}
