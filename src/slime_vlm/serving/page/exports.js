// A conversation as Markdown, JSON and PNG.
import { Heat, drawHeat } from "./heat.js";
import { budgetName, factsOf } from "./budgets.js";

const LONGEST = 2400;

export function asMarkdown(conversation) {
  const lines = [`# ${conversation.name}${conversation.page ? `, page ${conversation.page}` : ""}`, ""];
  for (const turn of conversation.turns) {
    lines.push(`**${turn.question}**`, "");
    if (turn.runs.length === 1) {
      lines.push(turn.runs[0].text, "");
      continue;
    }
    lines.push("| Local tokens | Answer | Tokens and time |", "| --- | --- | --- |");
    const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
    for (const run of turn.runs) lines.push(`| ${budgetName(run.budget)} | ${cell(run.text)} | ${factsOf(run)} |`);
    lines.push("");
  }
  return lines.join("\n");
}

export function asJson(conversation, model) {
  const { name, page, time, turns } = conversation;
  return JSON.stringify({ model, image: name, page, time: new Date(time).toISOString(), turns }, null, 2);
}

/** Draw image, heat map, question and answer. */
export function asPng(image, run, question, strength) {
  const scale = Math.min(1, LONGEST / Math.max(image.width, image.height));
  const width = Math.round(image.width * scale);
  const height = Math.round(image.height * scale);
  const size = Math.max(14, Math.round(width / 45));
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const font = (weight) => `${weight} ${size}px system-ui, "Liberation Sans", Arial, sans-serif`;
  context.font = font(400);
  const lines = [question, run.text, `${budgetName(run.budget)}: ${factsOf(run)}`].map((text) => wrap(context, text, width - 2 * size));
  canvas.width = width;
  canvas.height = height + Math.round((lines.flat().length + 1.2) * size * 1.4);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, width, height);
  if (run.explained?.tokens.local) {
    const heat = new Heat(run.explained);
    drawHeat(context, heat, heat.picture(), { x: 0, y: 0, width, height }, strength);
  }
  let y = height + size * 1.8;
  lines.forEach((block, index) => {
    context.font = font(index === 1 ? 700 : 400);
    context.fillStyle = index === 2 ? "#59626e" : "#1b1f24";
    for (const line of block) {
      context.fillText(line, size, y);
      y += size * 1.4;
    }
  });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function wrap(context, text, width) {
  const lines = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line && context.measureText(`${line} ${word}`).width > width) {
        lines.push(line);
        line = word;
      } else {
        line = line ? `${line} ${word}` : word;
      }
    }
    lines.push(line);
  }
  return lines;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that came over plain HTTP from another machine have no clipboard object.
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.select();
  document.execCommand("copy");
  area.remove();
}
