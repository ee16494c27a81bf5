// Where local tokens lie on an image. Numbers come from the `slime` object of an answer (docs/serving.md).

// From low to high score, as in `slime ask --show`.
const SCALE = [[255, 244, 170], [255, 213, 79], [255, 152, 0], [240, 84, 30], [214, 24, 70]];
const KEPT_ALPHA = 125;
const DROPPED = [110, 115, 125, 105];

export class Heat {
  /** @param explained An entry of `slime.images`. */
  constructor(explained) {
    const [rows, cols] = explained.grid;
    this.tiles = { rows, cols };
    this.rows = rows * explained.tile_side;
    this.cols = cols * explained.tile_side;
    this.cell = explained.view_size / explained.tile_side;
    this.viewSize = explained.view_size;
    this.placed = explained.placed;
    this.numLocal = explained.tokens.local;
    this.kept = new Set(explained.kept);
    this.scores = explained.scores;
    this.byRank = this.scores && [...this.scores.keys()].sort((a, b) => this.scores[b] - this.scores[a]);
    this.ranks = this.byRank && new Map(this.byRank.map((token, rank) => [token, rank + 1]));
  }

  /** Return the rectangle of tokens, or of all tiles, in fractions of the image's width and height. */
  rectangle(row = 0, col = 0, rows = this.rows, cols = this.cols) {
    const { top, left, height, width } = this.placed;
    return {
      x: (col * this.cell - left) / width,
      y: (row * this.cell - top) / height,
      width: (cols * this.cell) / width,
      height: (rows * this.cell) / height,
    };
  }

  cellOf(token) {
    return [Math.floor(token / this.cols), token % this.cols];
  }

  /** Return the token at a point, in fractions of the image, or null outside the image. */
  tokenAt(x, y) {
    if (!this.numLocal || x < 0 || y < 0 || x >= 1 || y >= 1) return null;
    const col = Math.floor((x * this.placed.width + this.placed.left) / this.cell);
    const row = Math.floor((y * this.placed.height + this.placed.top) / this.cell);
    return row * this.cols + col;
  }

  words(token) {
    const [row, col] = this.cellOf(token);
    const place = `row ${row + 1}, column ${col + 1}`;
    const kept = this.kept.has(token) ? "kept" : "dropped";
    if (!this.scores) return `${place}: ${kept}`;
    return `${place}: score ${this.scores[token].toFixed(3)}, rank ${this.ranks.get(token)} of ${this.numLocal}, ${kept}`;
  }

  summary() {
    if (!this.numLocal) return "No local tokens: the model saw the whole image in one view.";
    const best = this.byRank && ` The highest score is at ${this.words(this.byRank[0])}.`;
    return `${this.kept.size} of ${this.numLocal} local tokens were kept.${best ?? ""}`;
  }

  /** Paint one pixel per token. */
  picture() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.cols, this.rows];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(this.cols, this.rows);
    const found = this.scores ? [...this.kept].map((token) => this.scores[token]) : [];
    const low = Math.min(...found);
    const range = Math.max(...found) - low || 1;
    for (let token = 0; token < this.numLocal; token++) {
      const colour = this.kept.has(token)
        ? [...colourOf(this.scores ? (this.scores[token] - low) / range : 1), KEPT_ALPHA]
        : DROPPED;
      pixels.data.set(colour, 4 * token);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }
}

function colourOf(share) {
  const at = Math.min(share, 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  return SCALE[low].map((value, i) => Math.round(value + (SCALE[low + 1][i] - value) * (at - low)));
}

/** Draw the map on a canvas.
 * @param context Drawing context.
 * @param heat The tokens.
 * @param picture `heat.picture()`.
 * @param image The rectangle of the image on the canvas.
 * @param strength From 0 to 1.
 * @param marked A token with an outline, or null. */
export function drawHeat(context, heat, picture, image, strength, marked = null) {
  const place = (part) => [
    image.x + part.x * image.width, image.y + part.y * image.height, part.width * image.width, part.height * image.height,
  ];
  context.save();
  context.beginPath();
  context.rect(image.x, image.y, image.width, image.height);
  context.clip();
  context.globalAlpha = strength;
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, ...place(heat.rectangle()));
  context.strokeStyle = "rgb(38 110 190)";
  context.lineWidth = 1.5;
  const side = heat.viewSize / heat.cell;
  for (let row = 0; row < heat.tiles.rows; row++) {
    for (let col = 0; col < heat.tiles.cols; col++) context.strokeRect(...place(heat.rectangle(row * side, col * side, side, side)));
  }
  if (marked !== null) {
    context.globalAlpha = 1;
    context.lineWidth = 2.5;
    context.strokeStyle = "#000";
    const box = place(heat.rectangle(...heat.cellOf(marked), 1, 1));
    context.strokeRect(...box);
    context.lineWidth = 1;
    context.strokeStyle = "#fff";
    context.strokeRect(...box);
  }
  context.restore();
}
