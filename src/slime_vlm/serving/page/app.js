// The page: an image, questions about it, and where the model looked.
import { Refused, ServerGone, ask, modelName } from "./api.js";
import { BUDGETS, COMPARED, budgetName, fieldsOf } from "./budgets.js";
import { Connection } from "./connection.js";
import { addDialogs } from "./dialogs.js";
import { asJson, asMarkdown, asPng, copy, save } from "./exports.js";
import { dataUri, picture, thumbnail } from "./files.js";
import { addKeys } from "./keys.js";
import * as store from "./store.js";
import { drawRun, drawTurns, markRun, plain } from "./turns.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
// nano reads pages of its own renderer alone.
const EXAMPLES = {
  nano: ["rendered_invoice.webp", "What is the amount due?"],
  others: ["printed_invoice.webp", "When is payment due?"],
};

// The conversation on the page, its image as an element and as a data URI, and what can stop the answer under way.
let current = null;
let image = null;
let release = () => {};
let uri = "";
let running = null;
// The answer whose map is on the image.
let shown = null;
// A file that opens while another one is chosen must not replace it, and a question waits for it.
let openings = 0;
let opened = Promise.resolve();
// What "Try again" does, while the page shows it.
let retry = null;

const viewer = new Viewer($("viewer"), showToken);
const connection = new Connection(() => retry && problem("The server is back.", retry));

// --- Images

/** Take a file and begin a conversation about it, or go on with one that was kept. */
function openFile(...file) {
  opened = open(...file);
  return opened;
}

async function open(blob, name, page = null, kept = null) {
  const opening = ++openings;
  stop();
  problem(null);
  $("empty").querySelector(".big").textContent = `Opening ${name}…`;
  try {
    const encoded = await dataUri(blob);
    const found = await picture(blob, encoded, page);
    if (opening !== openings) return found.release();
    release();
    [image, release, uri] = [found.image, found.release, encoded];
    const pages = found.pages;
    current = kept ?? { id: crypto.randomUUID?.() ?? String(Math.random()), time: Date.now(), name, page, pages, blob, turns: [] };
    $("viewer").hidden = $("tools").hidden = false;
    $("empty").hidden = true;
    await viewer.open(found.source);
    $("page-tools").hidden = pages < 2;
    $("pages").textContent = `Page ${current.page ?? 1} of ${pages}`;
    document.title = `${name} · SliME`;
    draw();
    $("question").focus({ preventScroll: true });
  } catch (error) {
    if (opening === openings) problem(`${name} cannot be opened. ${error.message}`, error instanceof ServerGone && (() => openFile(blob, name, page, kept)));
    if (error instanceof ServerGone) connection.lost();
    else if (error.status === 401) connection.askForKey();
  } finally {
    $("empty").querySelector(".big").textContent = "Drop an image or a PDF here";
  }
}

async function takeExample() {
  try {
    const [file, question] = (await modelName()) === "nano" ? EXAMPLES.nano : EXAMPLES.others;
    const response = await fetch(`page/${file}`);
    await openFile(await response.blob(), "invoice.webp");
    $("question").value ||= question;
  } catch {
    problem("The example cannot be loaded. The server does not answer.", takeExample);
    connection.lost();
  }
}

function startAnew() {
  openings++;
  stop();
  problem(null);
  current = image = null;
  $("viewer").hidden = $("tools").hidden = true;
  $("empty").hidden = false;
  document.title = "SliME";
  viewer.explain(null);
  draw();
  $("choose").focus();
}

// --- Questions

async function askQuestion(question) {
  const turn = { question, runs: [], chosen: null };
  current.turns.push(turn);
  await askAgain(turn, chosenBudget());
}

/** Ask a question of the conversation with a budget, once more if it was asked with it before. */
async function askAgain(turn, budget) {
  stop();
  problem(null);
  const conversation = current;
  const stopping = (running = new AbortController());
  const run = { budget, text: "", done: false };
  const before = turn.runs.findIndex((other) => other.budget === budget || other.problem);
  turn.runs.splice(before < 0 ? turn.runs.length : before, before < 0 ? 0 : 1, run);
  turn.chosen = run;
  draw();
  const start = performance.now();
  try {
    const slime = { ...fieldsOf(budget), ...(conversation.page && { page: conversation.page }) };
    for await (const chunk of ask(messagesUpTo(conversation, turn), slime, stopping.signal)) take(chunk, run, start, turn);
    run.milliseconds = Math.round(performance.now() - start);
    run.done = true;
    await keep(conversation);
  } catch (error) {
    run.done = true;
    run.problem = error.name === "AbortError" ? `${run.text} (stopped)` : error.message;
    if (error instanceof ServerGone) connection.lost();
    if (error instanceof Refused && error.status === 401) connection.askForKey();
    if (error.name !== "AbortError" && conversation === current) problem(error.message, () => askAgain(turn, budget));
  } finally {
    if (running === stopping) running = null;
    if (conversation === current) {
      drawRun(run);
      draw({ turns: false });
    }
  }
  return run;
}

function take(chunk, run, start, turn) {
  const explained = chunk.slime?.images?.[0];
  if (explained) {
    run.explained = explained;
    if (turn.chosen === run && current?.turns.includes(turn)) look(run);
  }
  if (chunk.slime?.usage) {
    run.promptTokens = chunk.slime.usage.prompt_tokens;
    run.seconds = chunk.slime.seconds;
  }
  const text = chunk.choices[0]?.delta?.content;
  if (text) {
    run.firstMilliseconds ??= Math.round(performance.now() - start);
    run.text += text;
  }
  run.cut = chunk.choices[0]?.finish_reason === "length";
  drawRun(run);
  if (turn === current?.turns.at(-1)) $("turns").scrollTop = $("turns").scrollHeight;
}

/** Return the messages of a conversation up to the question of a turn. The image goes before the first one. */
function messagesUpTo(conversation, turn) {
  const messages = [];
  for (const one of conversation.turns) {
    const text = { type: "text", text: one.question };
    const first = messages.length === 0;
    messages.push({ role: "user", content: first ? [{ type: "image_url", image_url: { url: uri } }, text] : [text] });
    if (one === turn) break;
    messages.push({ role: "assistant", content: one.chosen.text });
  }
  return messages;
}

async function compare() {
  const turn = current.turns.at(-1);
  for (const budget of COMPARED) {
    const run = await askAgain(turn, budget);
    if (run.problem || current?.turns.at(-1) !== turn) return;
  }
}

function stop() {
  running?.abort();
}

function chosenBudget() {
  return BUDGETS[$("budget").value];
}

// --- What the page shows

function draw({ turns = true } = {}) {
  const asked = Boolean(current?.turns.some((turn) => turn.chosen?.text));
  if (turns) {
    drawTurns($("turns"), current?.turns ?? [], choose);
    markRun(current?.turns ?? [], shown);
  }
  $("turns").hidden = !current?.turns.length;
  $("hint").hidden = !$("turns").hidden;
  $("budget-row").hidden = !current;
  $("compare").disabled = !asked || Boolean(running);
  $("exports").hidden = !asked;
  $("send").textContent = running ? "Stop" : "Ask";
}

function choose(turn, run) {
  turn.chosen = run;
  look(run);
  keep(current);
}

function look(run) {
  shown = run;
  markRun(current.turns, shown);
  viewer.explain(run.explained ?? null);
  $("summary").textContent = viewer.heat?.summary() ?? "";
}

function showToken(words) {
  $("token").hidden = words === null;
  $("token").textContent = words && `Token in ${words}`;
}

/** Say what went wrong, with a button to try again where that may help. */
function problem(words, again = null) {
  const box = $("problem");
  retry = again || null;
  box.hidden = !words;
  box.textContent = words ?? "";
  if (!words || !again) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Try again";
  button.addEventListener("click", again);
  box.append(button);
}

async function keep(conversation) {
  if (!conversation.turns.some((turn) => turn.runs.some((run) => run.done && !run.problem))) return;
  conversation.thumbnail ??= thumbnail(image);
  try {
    await store.keep({ ...conversation, turns: plain(conversation.turns) });
  } catch {
    $("history-note").textContent = "This browser keeps no history, as private windows do.";
  }
}

async function reopen(kept) {
  const turns = kept.turns.map((turn) => ({ ...turn, chosen: turn.runs[turn.chosen] ?? turn.runs[0] }));
  await openFile(kept.blob, kept.name, kept.page, { ...kept, turns });
  if (current?.id === kept.id) look(turns.at(-1).chosen);
}

// --- Controls

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) openFile(file, file.name);
  $("file").value = "";
});
$("example").addEventListener("click", takeExample);
$("new").addEventListener("click", startAnew);

function takeTransfer(event, transfer) {
  const [file] = transfer.files;
  if (!file) return;
  event.preventDefault();
  openFile(file, file.name || "pasted image");
}
addEventListener("paste", (event) => takeTransfer(event, event.clipboardData));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) takeTransfer(event, event.dataTransfer);
  else problem("What was dropped is no file. Save the image first, or copy and paste it.");
});

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return stop();
  await opened;
  const question = $("question").value.trim();
  if (!current) return problem("Choose an image first, or take the example.");
  if (!question) return problem("Write a question first.");
  $("question").value = "";
  askQuestion(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) $("ask").requestSubmit();
});

$("budget").max = BUDGETS.length - 1;
const nameBudget = () => {
  $("budget-name").textContent = budgetName(chosenBudget());
  $("budget").setAttribute("aria-valuetext", budgetName(chosenBudget()));
};
$("budget").addEventListener("input", nameBudget);
$("budget").addEventListener("change", () => {
  const turn = current?.turns.at(-1);
  if (turn) askAgain(turn, chosenBudget());
});
nameBudget();
$("compare").addEventListener("click", compare);

$("fade").addEventListener("input", () => viewer.fade($("fade").value / 100));
$("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
$("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
$("zoom-all").addEventListener("click", () => viewer.zoomAll());

$("copy").addEventListener("click", async () => {
  await copy(asMarkdown(current));
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy as Markdown"), 2000);
});
$("save-json").addEventListener("click", () => {
  const json = asJson({ ...current, turns: plain(current.turns) }, connection.model);
  save(new Blob([json], { type: "application/json" }), `${current.name}.json`);
});
$("save-png").addEventListener("click", async () => {
  const turn = current.turns.findLast((one) => one.chosen?.text);
  save(await asPng(image, turn.chosen, turn.question, viewer.strength), `${current.name}.answer.png`);
});

addDialogs({ reopen, openPage: (page) => openFile(current.blob, current.name, page), current: () => ({ ...current, uri }) });
addKeys({ viewer, stop, startAnew });
