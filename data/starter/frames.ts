// A recipe's frames as pixels, whichever domain it is of. Called by write.ts and by reports.

import { cartoonFrame } from "./cartoon.ts";
import { Draws } from "./draws.ts";
import { letteringLayer } from "./lettering.ts";
import type { Recipe } from "./plan.ts";
import { drawOver, straighten } from "./raster.ts";
import { realFrame } from "./real.ts";

export interface StickerFrames {
  readonly width: number;
  readonly height: number;
  /** Straight RGBA, row-major, width * height * 4 bytes each. */
  readonly frames: readonly Uint8Array[];
  readonly delaysMs: readonly number[];
}

/** Draws a sticker; a pure function of the recipe. */
export function stickerFrames(recipe: Recipe): StickerFrames {
  const { size, text, frames: count, delayMs } = recipe;
  const draw = recipe.domain === "Real" ? realFrame : cartoonFrame;
  const words = text === null ? null : letteringLayer(text, size, new Draws(recipe.seed, recipe.index));
  const frames = Array.from({ length: count }, (_, k) => {
    const frame = draw(recipe, k);
    if (words) drawOver(frame, words);
    return straighten(frame);
  });
  return { width: size, height: size, frames, delaysMs: frames.map(() => delayMs) };
}
