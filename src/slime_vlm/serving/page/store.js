// Conversations, kept in this browser with their images. Every change goes to the database at once, so tabs do not
// overwrite each other.

const MOST = 40;

let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("slime", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

async function run(mode, work) {
  const store = (await database()).transaction("conversations", mode).objectStore("conversations");
  const request = work(store);
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Keep a conversation. The oldest ones go when there are too many. */
export async function keep(conversation) {
  await run("readwrite", (store) => store.put(conversation));
  for (const old of (await all()).slice(MOST)) await run("readwrite", (store) => store.delete(old.id));
}

/** Return all conversations, the newest first. */
export async function all() {
  return (await run("readonly", (store) => store.getAll())).sort((a, b) => b.time - a.time);
}

export async function forgetAll() {
  await run("readwrite", (store) => store.clear());
}
