// From files to something the browser can show. What it cannot decode by itself, the server draws.
import { preview } from "./api.js";

const SHOWN_SIDE = 3000;
const THUMBNAIL_SIDE = 280;

export function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.replace(/^data:[^,]*,/, `data:${blob.type || "application/octet-stream"};base64,`));
    reader.onerror = () => reject(new Error("The browser cannot read this file."));
    reader.readAsDataURL(blob);
  });
}

/** Return `{ image, pages }` for a file: an `img` element that has loaded, and the number of pages. */
export async function picture(blob, uri, page) {
  const direct = page === null && await decoded(URL.createObjectURL(blob));
  if (direct) return { image: direct, pages: 1 };
  const found = await preview(uri, page, SHOWN_SIDE);
  return { image: await decoded(found.url), pages: found.pages };
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

export async function pageThumbnail(uri, page) {
  return (await preview(uri, page, THUMBNAIL_SIDE)).url;
}

/** Return a small picture for the history. */
export function thumbnail(image) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}
