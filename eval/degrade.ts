// Ways to spoil a clip, from not at all (0) to thoroughly (1): what metrics must notice. The small networks learn to tell them
// (train_features.ts), and the laws of metrics in the tests are stated with them. Clips are bytes [t, size, size, 3].

import { type Draw, shuffled } from "./draw.ts";

export interface Degrading {
  readonly size: number;
  readonly strength: number;
  readonly draw: Draw;
}

export const DEGRADATIONS = {
  none: (clip) => clip,
  noise,
  frozen,
  shuffled: shuffle,
  blur,
  blocks,
} as const satisfies Readonly<Record<string, (clip: Uint8Array, o: Degrading) => Uint8Array>>;
export type Degradation = keyof typeof DEGRADATIONS;

/** Each byte moves by up to 128 `strength` either way. */
function noise(clip: Uint8Array, { strength, draw }: Degrading): Uint8Array {
  const reach = Math.round(128 * strength);
  const moved = Uint8ClampedArray.from(clip, (x) => x - reach + draw(2 * reach + 1));
  return new Uint8Array(moved.buffer);
}

/** The last frames, a `strength` of all, are the one before them. */
function frozen(clip: Uint8Array, { size, strength }: Degrading): Uint8Array {
  const frame = size * size * 3;
  const last = Math.max(0, Math.ceil((clip.length / frame) * (1 - strength)) - 1);
  const out = clip.slice();
  for (let at = (last + 1) * frame; at < out.length; at += frame) out.copyWithin(at, last * frame, (last + 1) * frame);
  return out;
}

/** That share of the frames change places with each other. */
function shuffle(clip: Uint8Array, { size, strength, draw }: Degrading): Uint8Array {
  const frame = size * size * 3;
  const count = clip.length / frame;
  const moved = shuffled(count, draw).slice(0, Math.round(count * strength));
  const out = clip.slice();
  moved.forEach((to, i) => {
    const from = moved[(i + 1) % moved.length];
    out.set(clip.subarray(from * frame, (from + 1) * frame), to * frame);
  });
  return out;
}

/** Mean over squares around each pixel that reach up to a quarter of the side. */
function blur(clip: Uint8Array, { size, strength }: Degrading): Uint8Array {
  const reach = Math.round((size / 4) * strength);
  return reach === 0 ? clip : averaged(averaged(clip, size, reach, 3), size, reach, 3 * size);
}

/** Running means along one axis, whose neighbours are `step` values apart; shorter at the edges. */
function averaged(clip: Uint8Array, size: number, reach: number, step: number): Uint8Array {
  const out = new Uint8Array(clip.length);
  for (let i = 0; i < clip.length; i++) {
    const at = Math.floor(i / step) % size;
    const [low, high] = [Math.max(0, at - reach), Math.min(size - 1, at + reach)];
    let sum = 0;
    for (let k = low; k <= high; k++) sum += clip[i + (k - at) * step];
    out[i] = Math.round(sum / (high - low + 1));
  }
  return out;
}

/** Each square of pixels, up to half the side, has its upper left corner's colour. */
function blocks(clip: Uint8Array, { size, strength }: Degrading): Uint8Array {
  const side = Math.max(1, Math.round((size / 2) * strength));
  return Uint8Array.from(clip, (_, i) => {
    const [c, pixel] = [i % 3, Math.floor(i / 3)];
    const [x, y, t] = [pixel % size, Math.floor(pixel / size) % size, Math.floor(pixel / (size * size))];
    const [left, top] = [x - (x % side), y - (y % side)];
    return clip[3 * (t * size * size + top * size + left) + c];
  });
}
