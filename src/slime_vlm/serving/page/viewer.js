// The image, with the heat map over it.
/* global OpenSeadragon */
import { Heat, drawHeat } from "./heat.js";

export class Viewer {
  /** @param element Where the image goes.
   * @param onToken Called with the words for the token under the pointer, or null. */
  constructor(element, onToken) {
    this.element = element;
    this.onToken = onToken;
    this.strength = 0.7;
    this.heat = this.picture = this.marked = null;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  /** Show an image.
   * @param source What OpenSeadragon opens.
   * @returns A promise that fails when the browser cannot decode it. */
  open(source) {
    this.explain(null);
    this.start();
    return new Promise((resolve, reject) => {
      this.viewer.addOnceHandler("open", () => resolve());
      this.viewer.addOnceHandler("open-failed", () => reject(new Error("This browser cannot show the image.")));
      this.viewer.open({ tileSource: source });
    });
  }

  start() {
    if (this.viewer) return;
    this.viewer = OpenSeadragon({
      element: this.element,
      showNavigationControl: false,
      // Small images and headless browsers do well with it, and it is the same everywhere.
      drawer: "canvas",
      maxZoomPixelRatio: 8,
      visibilityRatio: 0.3,
      animationTime: this.still ? 0 : 0.4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    this.canvas = document.createElement("canvas");
    this.canvas.className = "heat";
    this.viewer.canvas.append(this.canvas);
    for (const event of ["update-viewport", "open", "resize"]) this.viewer.addHandler(event, () => this.draw());
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerdown", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.mark(null));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Show what was kept. @param explained An entry of `slime.images`, or null. */
  explain(explained) {
    this.heat = explained && new Heat(explained);
    this.picture = this.heat?.numLocal ? this.heat.picture() : null;
    this.mark(null);
  }

  fade(strength) {
    this.strength = strength;
    this.draw();
  }

  imageRectangle() {
    const item = this.viewer?.world.getItemAt(0);
    return item && this.viewer.viewport.viewportToViewerElementRectangle(item.getBounds(true));
  }

  draw() {
    if (!this.canvas) return;
    const ratio = devicePixelRatio;
    const { clientWidth, clientHeight } = this.element;
    if (this.canvas.width !== Math.round(clientWidth * ratio)) this.canvas.width = Math.round(clientWidth * ratio);
    if (this.canvas.height !== Math.round(clientHeight * ratio)) this.canvas.height = Math.round(clientHeight * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, clientWidth, clientHeight);
    const image = this.imageRectangle();
    if (image && this.picture) drawHeat(context, this.heat, this.picture, image, this.strength, this.marked);
  }

  point(event) {
    const image = this.imageRectangle();
    if (!image || !this.picture) return;
    const box = this.element.getBoundingClientRect();
    const x = (event.clientX - box.left - image.x) / image.width;
    const y = (event.clientY - box.top - image.y) / image.height;
    this.mark(this.heat.tokenAt(x, y));
  }

  /** Outline a token and tell about it. */
  mark(token) {
    this.marked = token;
    this.onToken(token === null ? null : this.heat.words(token));
    this.draw();
  }

  /** Outline the next token by rank: for those who use no pointer. */
  walk(step) {
    if (!this.heat?.byRank || !this.picture) return;
    const rank = this.marked === null ? (step > 0 ? 0 : -1) : this.heat.ranks.get(this.marked) - 1 + step;
    this.mark(this.heat.byRank.at(rank % this.heat.numLocal));
  }

  zoom(factor) {
    this.viewer?.viewport.zoomBy(factor).applyConstraints();
  }

  zoomAll() {
    this.viewer?.viewport.goHome();
  }
}
