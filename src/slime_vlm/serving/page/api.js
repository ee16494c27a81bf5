// The server's API, as any other client uses it. See docs/serving.md.

/** The server does not answer at all. */
export class ServerGone extends Error {}

/** The server answers that it will not. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = sessionStorage.getItem("slime-key") ?? "";

export function useKey(value) {
  key = value;
  sessionStorage.setItem("slime-key", value);
}

/** Send a request. Paths are relative, so that the page works below a prefix of a proxy. */
async function send(path, options = {}) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(options.body && { "Content-Type": "application/json" }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerGone("The server does not answer.");
  }
  if (!response.ok) throw new Refused(response.status, await wordsOf(response));
  return response;
}

async function wordsOf(response) {
  let message = "";
  try {
    message = (await response.json()).error.message;
  } catch {
    // A proxy in between has answered.
  }
  if (response.status === 401) return "The server asks for an API key.";
  if (response.status === 413) return `The file is too large. ${sentence(message)}`;
  if (response.status === 503) return `The server is busy. ${sentence(message)}`;
  return sentence(message) || `The server refuses with status ${response.status}.`;
}

/** Turn a message of the server into a sentence. The place in the request means nothing here. */
export function sentence(message) {
  const text = message.replace(/^(image|messages\.\d+\.\S+): /, "").replace(/^not an image/, "it is not an image").trim();
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

export async function isReady() {
  await send("ready", { signal: AbortSignal.timeout(8000) });
}

export async function modelName() {
  return (await (await send("v1/models")).json()).data[0].id;
}

/** Ask, and yield the parts of the answer as they arrive, in the form of OpenAI's chunks. */
export async function* ask(messages, slime, signal) {
  const body = JSON.stringify({ messages, stream: true, slime: { ...slime, explain: true } });
  const response = await send("v1/chat/completions", { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let ended = false;
  while (true) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerGone("The server has gone in the middle of the answer.");
    }
    if (part.done && !ended) throw new ServerGone("The answer broke off.");
    if (part.done) return;
    const events = (rest + part.value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if ((ended = data === "[DONE]")) continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(500, sentence(chunk.error.message));
      yield chunk;
    }
  }
}

/** Let the server draw an image that browsers do not read, such as a page of a PDF.
 * @returns `{ pages, tile_side, levels }`, the levels from small to large with their `size` and the addresses of their
 *   `tiles`, row by row. */
export async function preview(url, page, longSide) {
  const body = JSON.stringify({ url, page, long_side: longSide });
  const bytes = new Uint8Array(await (await send("page/preview", { method: "POST", body })).arrayBuffer());
  let start = bytes.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, start++)));
  for (const level of header.levels) {
    level.tiles = level.tiles.map((length) => {
      const file = new Blob([bytes.subarray(start, (start += length))], { type: "image/jpeg" });
      return URL.createObjectURL(file);
    });
  }
  return header;
}
