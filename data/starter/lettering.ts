// The words on a sticker: one line in the bundled bold face with a contour, along the bottom edge.
// Called by cartoon.ts and real.ts, which lay the layer over every frame.

import { FONT_FAMILY, fontFile } from "./assets.ts";
import type { Draws } from "./draws.ts";
import { widthInEms } from "./phrases.ts";
import { type Premultiplied, rasterise } from "./raster.ts";

/** Part of the stage's height that stays for the picture when there are words below it. */
export const PICTURE_SHARE = 0.76;
const LARGEST_TYPE = 0.21;

/** [letters, contour] */
const STYLES = [
  ["#ffffff", "#22252b"],
  ["#22252b", "#ffffff"],
  ["#e0245e", "#ffffff"],
  ["#1b6fd0", "#ffffff"],
  ["#ffd23e", "#22252b"],
] as const;

/** A size x size layer with `text` on it and nothing else. */
export function letteringLayer(text: string, size: number, draws: Draws): Premultiplied {
  const [fill, contour] = draws.pick("lettering", STYLES);
  const type = Math.min(LARGEST_TYPE, 0.93 / widthInEms(text));
  const escaped = text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  // The contour is drawn first and under the letters (paint-order), so its inner half does not thin the strokes.
  const body =
    `<text x="0.5" y="${0.965 - type * 0.12}" text-anchor="middle" font-family="${FONT_FAMILY}" font-weight="700" ` +
    `font-size="${type}" fill="${fill}" stroke="${contour}" stroke-width="${type * 0.2}" stroke-linejoin="round" ` +
    `paint-order="stroke">${escaped}</text>`;
  return rasterise(body, size, [fontFile()]);
}
