// Where the emoji art and the bundled font are on disk. Art comes from the installed @twemoji/svg package; the font is
// found by walking up from this module, which works from the source tree and from a bundle built inside the checkout.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const FONT_FAMILY = "Noto Sans SC";
const FONT = "data/starter/assets/NotoSansSC-Bold-subset.ttf";

let font: string | undefined;
let artFolder: string | undefined;
const art = new Map<string, string>();

/** Path of the bundled font. Throws Error naming the file where the checkout is incomplete. */
export function fontFile(): string {
  font ??= findUpwards(path.dirname(fileURLToPath(import.meta.url)), FONT);
  return font;
}

function findUpwards(from: string, relative: string): string {
  for (let folder = from; ; folder = path.dirname(folder)) {
    const candidate = path.join(folder, relative);
    if (existsSync(candidate)) return candidate;
    if (folder === path.dirname(folder)) {
      throw new Error(`starter set: ${relative} was not found above ${from}; run from a complete Gifgrad checkout`);
    }
  }
}

/** The elements of one emoji's SVG, in a 36-unit square. `code` is hex code points joined by "-". */
export function emojiArt(code: string): string {
  let body = art.get(code);
  if (body === undefined) {
    artFolder ??= path.dirname(createRequire(import.meta.url).resolve("@twemoji/svg/package.json"));
    const svg = readFileSync(path.join(artFolder, `${code}.svg`), "utf8");
    body = svg.replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>\s*$/, "");
    art.set(code, body);
  }
  return body;
}
