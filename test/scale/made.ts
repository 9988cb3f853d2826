// A made-up sticker for every number: what a source says of it, and what decoding its file would find. Marginals are the
// paper's (spec 5). Perceptual hashes are skewed as those of real stickers are, which is what finding near duplicates is slow
// by: they are taken of small pictures, half of them stills (one frame, four times), most drawings with blank margins, some of
// nothing; and a share are copies of another sticker with a few bits changed, many of a few popular ones. Frames of drawings are
// about as far apart as Twemoji's: in the mean by 24 of 64 bits, by 27 there.

import type { Measures } from "../../data/curate/measure.ts";
import type { SourceEntry } from "../../data/curate/sources/source.ts";
import { pickFrames } from "../../data/frames.ts";
import { sha256 } from "../../data/hash.ts";
import { uniforms } from "../../engine/testing/draw.ts";

type Random = () => number;

const [CARTOON, ANIMATED, READ] = [0.456, 0.519, 0.552];
/** Copies of another sticker; of them, nearly all bits alike; and pictures of nothing. */
const [COPIES, BLANK] = [0.2, 0.002];
const COPY_BITS = 9;
/** Frames that a hash is made of, and their boxes. */
const [HASHED, ACROSS, DOWN] = [4, 9, 8];

const FILLER =
  "a cartoon character with a round face is waving its hand and smiling at the viewer on a white background while it jumps";

/** The sticker whose picture number `i` of `count` shows: most often its own, else one that is the likelier the lower its number. */
function pictureOf(i: number, count: number, random: Random): number {
  return random() < COPIES ? Math.floor(count ** random()) - 1 : i;
}

interface Kind {
  readonly cartoon: boolean;
  readonly read: boolean;
  readonly animated: boolean;
}

/** The first numbers of a picture's, so that both halves of a sticker are of one kind. */
function kindOf(random: Random): Kind {
  return { cartoon: random() < CARTOON, read: random() < READ, animated: random() < ANIMATED };
}

/** What the source says of sticker `i` of `count`. Its trigger words follow Zipf's law; those of copies are alike. */
export function entryOf(i: number, count: number): SourceEntry {
  const picture = pictureOf(i, count, uniforms(2 * i));
  const random = uniforms(2 * picture + 1);
  const { cartoon, read } = kindOf(random);
  const words = Array.from({ length: 1 + Math.floor(70 * random()) }, () => `word ${Math.floor(600_000 ** random())}`);
  return {
    at: `${i}.gif`,
    words,
    caption: `${FILLER.slice(0, 40 + Math.floor(80 * random()))} ${i}`,
    captionZh: "一个圆脸的卡通人物在挥手",
    domain: cartoon ? "Cartoon" : "Real",
    text: read ? "OK" : undefined,
    license: "CC0-1.0",
    stamp: "40000 0",
    bytes: () => Promise.reject(new Error("there is no file")),
  };
}

/** In place of the hash of a file: its last digits are the number of the sticker. */
export function idOf(i: number): string {
  return sha256(`sticker ${i}`).slice(0, 56) + i.toString(16).padStart(8, "0");
}

export function numberOf(id: string): number {
  return Number.parseInt(id.slice(56), 16);
}

/** What decoding sticker `i` of `count` would find. */
export function measuresOf(i: number, count: number): Measures {
  const random = uniforms(2 * i);
  const picture = pictureOf(i, count, random);
  const flips = picture === i ? 0 : Math.floor((COPY_BITS + 1) * random());
  const drawn = uniforms(2 * picture + 1);
  const { cartoon, animated } = kindOf(drawn);
  const frames = animated ? 2 + Math.floor(60 * drawn() * drawn()) : 1;
  const hash =
    drawn() < BLANK ? new Uint8Array(HASHED * 8) : cartoon ? drawing(drawn, frames) : photograph(drawn, frames);
  for (let f = 0; f < flips; f++) {
    const bit = Math.floor(8 * hash.length * random());
    hash[bit >> 3] ^= 1 << (bit & 7);
  }
  return {
    width: 256,
    height: 256,
    frames,
    duration_ms: frames > 1 ? 100 * frames : 0,
    has_alpha: cartoon,
    aspect: 1,
    entropy: 4,
    motion: frames > 1 ? 0.1 : 0,
    phash: Buffer.from(hash).toString("hex"),
  };
}

/** A few soft ellipses around the middle of a white ground; some of them move. */
function drawing(random: Random, frames: number): Uint8Array {
  const blobs = Array.from({ length: 6 + Math.floor(10 * random()) }, (_, b) => ({
    x: 0.5 + 0.75 * (random() - 0.5),
    y: 0.5 + 0.9 * (random() - 0.5),
    width: (0.4 * (0.2 + random())) / (1 + 0.2 * b), // details upon what is large
    height: (0.4 * (0.2 + random())) / (1 + 0.2 * b),
    grey: 250 * random(),
    moves: random() < 0.5 ? 0.15 * random() : 0,
  }));
  return hashOf(frames, (x, y, t) => {
    let grey = 255;
    for (const { x: cx, y: cy, width, height, grey: own, moves } of blobs) {
      const [dx, dy] = [(x - cx - moves * t) / width, (y - cy - moves * t) / height];
      const cover = Math.min(1, Math.max(0, 3 - 2.5 * (dx * dx + dy * dy)));
      grey += cover * (own - grey);
    }
    return Math.round(grey);
  });
}

/** Slow waves over the whole picture, as light and shade are, which pass on. */
function photograph(random: Random, frames: number): Uint8Array {
  const waves = Array.from({ length: 5 }, (_, i) => ({
    x: 12 * (i + 1) * (random() - 0.5),
    y: 12 * (i + 1) * (random() - 0.5),
    phase: 2 * Math.PI * random(),
    speed: 2 * random() * random(),
    height: 60 / (i + 1),
  }));
  return hashOf(frames, (x, y, t) => {
    let grey = 128;
    for (const wave of waves) grey += wave.height * Math.cos(wave.x * x + wave.y * y + wave.phase + wave.speed * t);
    return Math.round(grey);
  });
}

/** The difference hash of data/curate/measure.ts of the grey at the middle of each box; x, y and time from 0 to 1. */
function hashOf(frames: number, grey: (x: number, y: number, t: number) => number): Uint8Array {
  const hash = new Uint8Array((HASHED * DOWN * (ACROSS - 1)) / 8);
  const picked = pickFrames(Math.min(8, frames), HASHED);
  for (const [f, frame] of picked.entries()) {
    const before = picked.indexOf(frame);
    if (before < f) {
      hash.copyWithin(8 * f, 8 * before, 8 * before + 8);
      continue;
    }
    for (let y = 0; y < DOWN; y++) {
      const row = Array.from({ length: ACROSS }, (_, x) => grey((x + 0.5) / ACROSS, (y + 0.5) / DOWN, frame / 8));
      for (let x = 0; x < ACROSS - 1; x++) if (row[x] > row[x + 1]) hash[8 * f + y] |= 128 >> x;
    }
  }
  return hash;
}
