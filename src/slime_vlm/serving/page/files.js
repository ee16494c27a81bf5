// From files to something the browser can show. What it cannot decode by itself, the server draws.
import { preview } from "./api.js";

// What the viewer shows, and what exports draw.
const LARGEST_SIDE = 65_536;
const DRAWN_SIDE = 3000;
const THUMBNAIL_SIDE = 280;

export function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.replace(/^data:[^,]*,/, `data:${blob.type || "application/octet-stream"};base64,`));
    reader.onerror = () => reject(new Error("The browser cannot read this file."));
    reader.readAsDataURL(blob);
  });
}

/** Open a file.
 * @returns `{ image, source, pages, release }`: something to draw on a canvas, what the viewer shows, the number of
 *   pages, and what frees the memory. */
export async function picture(blob, uri, page) {
  const url = URL.createObjectURL(blob);
  const image = page === null && (await decoded(url));
  if (image) return { image, source: { type: "image", url }, pages: 1, release: () => URL.revokeObjectURL(url) };
  URL.revokeObjectURL(url);
  const found = await preview(uri, page, LARGEST_SIDE);
  const urls = found.levels.flatMap((level) => level.tiles);
  return {
    image: await joined(found.levels.findLast((level) => Math.max(...level.size) <= DRAWN_SIDE), found.tile_side),
    source: tileSource(found),
    pages: found.pages,
    release: () => urls.forEach((one) => URL.revokeObjectURL(one)),
  };
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}

/** Describe tiles to OpenSeadragon. Each of its levels has twice the pixels of the one before. */
function tileSource({ levels, tile_side: tileSize }) {
  const [height, width] = levels.at(-1).size;
  const columns = (level) => Math.ceil(levels[level].size[1] / tileSize);
  return {
    width, height, tileSize, minLevel: 0, maxLevel: levels.length - 1,
    getTileUrl: (level, x, y) => levels[level].tiles[y * columns(level) + x],
  };
}

/** Draw the tiles of a level on one canvas. */
async function joined({ size: [height, width], tiles }, side) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const columns = Math.ceil(width / side);
  for (const [index, url] of tiles.entries()) {
    context.drawImage(await decoded(url), (index % columns) * side, Math.floor(index / columns) * side);
  }
  return canvas;
}

export async function pageThumbnail(uri, page) {
  return (await preview(uri, page, THUMBNAIL_SIDE)).levels[0].tiles[0];
}

/** Return a small picture for the history. */
export function thumbnail(image) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}
