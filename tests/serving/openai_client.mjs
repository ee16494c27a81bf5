// Asks a server about an image with OpenAI's client for Node, whole, streamed and wrongly, and prints JSON.
// node openai_client.mjs BASE_URL MODEL IMAGE QUESTION, where ESM finds the package `openai`: in a folder above, or
// beside a copy of this file.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const [baseURL, model, image, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const url = `data:image/png;base64,${readFileSync(image).toString("base64")}`;
const messages = [
  { role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: question }] },
];

const whole = await client.chat.completions.create({ model, messages, slime: { explain: true } });

const chunks = [];
const stream = await client.chat.completions.create({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) chunks.push(chunk);

// The helper that puts the pieces together checks their form, too.
const helper = client.chat.completions.stream({ model, messages });
const gathered = await helper.finalContent();

// A client that stops reading in the middle of a stream.
const stopped = await client.chat.completions.create({ model, messages, stream: true });
for await (const _ of stopped) break;

let refused;
try {
  await client.chat.completions.create({ model: "other", messages });
} catch (error) {
  refused = { type: error.constructor.name, status: error.status, code: error.code, message: error.message };
}

const models = [];
for await (const found of client.models.list()) models.push(found.id);

console.log(JSON.stringify({ whole, chunks, gathered, refused, models }));
