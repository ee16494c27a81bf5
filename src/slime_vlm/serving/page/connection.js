// Whether the server is there, and under which name.
import { Refused, isReady, modelName, useKey } from "./api.js";

const EVERY = 4000;

export class Connection {
  /** @param onBack Called when a server that was gone answers again. */
  constructor(onBack) {
    this.onBack = onBack;
    this.model = "";
    this.state = "";
    document.addEventListener("visibilitychange", () => this.check());
    setInterval(() => this.check(), EVERY);
    this.check();
  }

  async check() {
    if (document.hidden || this.checking) return;
    this.checking = true;
    try {
      await isReady();
      if (!this.model) this.model = await modelName();
      const back = this.state === "gone";
      this.show("ready", `${this.model} is ready`);
      if (back) this.onBack();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) await this.askForKey();
      else if (error instanceof Refused) this.show("gone", error.message);
      else this.lost();
    } finally {
      this.checking = false;
    }
  }

  lost() {
    this.model = "";
    this.show("gone", "The server does not answer. Trying again…");
  }

  /** Ask the user for an API key. */
  async askForKey() {
    this.show("gone", "The server asks for a key");
    const dialog = document.querySelector("#key-dialog");
    if (dialog.open) return;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue === "use") useKey(document.querySelector("#key").value.trim());
  }

  show(state, text) {
    if (this.state === state && this.text === text) return;
    [this.state, this.text] = [state, text];
    document.querySelector("#status").dataset.state = state;
    document.querySelector("#status-text").textContent = text;
  }
}
