// SVG text to pixels, and pixels over pixels. The only file that calls resvg. System fonts are never loaded: the same
// bytes must come out on a machine with no fonts at all. Called by cartoon.ts, real.ts and lettering.ts.

import { Resvg } from "@resvg/resvg-js";

/** Premultiplied RGBA, as resvg gives it. */
export type Premultiplied = Uint8Array;

/** Renders `body`, SVG elements in a unit square, to size x size pixels. `fontFiles` are paths of sfnt fonts. */
export function rasterise(body: string, size: number, fontFiles: string[] = []): Premultiplied {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">${body}</svg>`;
  const font = { loadSystemFonts: false, fontFiles };
  return new Resvg(svg, { fitTo: { mode: "width", value: size }, font }).render().pixels;
}

/** Porter-Duff "over" on premultiplied pixels, into `under`. */
export function drawOver(under: Premultiplied, over: Premultiplied): void {
  for (let i = 0; i < under.length; i += 4) {
    const rest = 255 - over[i + 3];
    if (rest === 255) continue;
    for (let c = i; c < i + 4; c++) under[c] = over[c] + Math.round((under[c] * rest) / 255);
  }
}

/** Premultiplied to straight alpha, as image files store it. */
export function straighten(pixels: Premultiplied): Uint8Array {
  const out = Uint8Array.from(pixels);
  for (let i = 0; i < out.length; i += 4) {
    const alpha = out[i + 3];
    if (alpha === 255 || alpha === 0) continue;
    for (let c = i; c < i + 3; c++) out[c] = Math.min(255, Math.round((out[c] * 255) / alpha));
  }
  return out;
}
