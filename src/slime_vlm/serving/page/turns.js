// The list of questions and answers.
import { cardName, timeOf, tokensOf } from "./budgets.js";

/** Draw all turns.
 * @param list The `ol` element.
 * @param onChoose Called with turn and run when the user picks an answer to look at. */
export function drawTurns(list, turns, onChoose) {
  list.replaceChildren(...turns.map((turn) => turnElement(turn, onChoose)));
  list.scrollTop = list.scrollHeight;
}

function turnElement(turn, onChoose) {
  const item = document.createElement("li");
  const said = item.appendChild(document.createElement("p"));
  said.className = "said";
  said.textContent = turn.question;
  const runs = item.appendChild(document.createElement("div"));
  runs.className = "runs";
  runs.setAttribute("aria-live", "polite");
  for (const run of turn.runs) runs.append(runElement(turn, run, onChoose));
  return item;
}

function runElement(turn, run, onChoose) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "run";
  button.title = "Show where the model looked";
  for (const name of ["budget", "answer", "facts", "facts"]) {
    const part = button.appendChild(document.createElement("span"));
    part.className = name;
  }
  button.addEventListener("click", () => onChoose(turn, run));
  run.element = button;
  drawRun(run);
  return button;
}

/** Bring the card of an answer up to date. */
export function drawRun(run) {
  const [budget, answer, tokens, time] = run.element.children;
  budget.textContent = cardName(run.budget);
  answer.textContent = run.problem ?? (run.text || (run.done ? "(an empty answer)" : ""));
  answer.classList.toggle("waiting", !run.done && !run.problem);
  tokens.textContent = tokensOf(run);
  time.textContent = timeOf(run) + (run.cut ? ", cut at the length limit" : "");
  run.element.classList.toggle("failed", Boolean(run.problem));
}

/** Mark the answer whose map is on the image. */
export function markRun(turns, shown) {
  for (const run of turns.flatMap((turn) => turn.runs)) run.element.setAttribute("aria-pressed", String(run === shown));
}

/** Return the turns without what only this page needs. */
export function plain(turns) {
  return turns.map(({ question, runs, chosen }) => ({
    question,
    chosen: runs.indexOf(chosen),
    runs: runs.filter((run) => run.done).map(({ element, ...fields }) => fields),
  }));
}
