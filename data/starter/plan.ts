// Which stickers a starter set holds: from (options, seed) to one recipe a sticker, each a pure function of its index.
// No pixels here; cartoon.ts and real.ts draw a recipe, captions.ts words it.

import type { Domain } from "../record.ts";
import type { ActionId } from "./actions.ts";
import { type Pair, pairsOf, type Restriction } from "./cast.ts";
import { Draws, permutation } from "./draws.ts";
import { COLOUR_IDS, type GroundId } from "./grounds.ts";
import { PHRASES, type Phrase, type TextLang, widthInEms } from "./phrases.ts";
import { FLOORS, type FloorId } from "./solids.ts";

export type FileFormat = "gif" | "webp" | "apng";

export interface PlanOptions extends Restriction {
  readonly count: number;
  readonly seed: number;
  /** Pixels a side, 16 to 1024. Default 64. */
  readonly size?: number;
  /** At least 8. Default 8. */
  readonly frames?: number;
  /** Default both; where both are asked for, about three stickers in ten are "Real". */
  readonly domains?: readonly Domain[];
  /** No text, no coloured ground, first wording of each action, GIF files, 100 ms a frame: the easiest set to learn. */
  readonly plain?: boolean;
}

/** Everything needed to draw and word one sticker again. Plain JSON; stored in each record. */
export interface Recipe {
  readonly seed: number;
  readonly index: number;
  readonly domain: Domain;
  readonly subject: string;
  readonly action: ActionId;
  readonly size: number;
  readonly frames: number;
  readonly delayMs: number;
  readonly format: FileFormat;
  readonly ground: GroundId | FloorId;
  readonly text: string | null;
  readonly textLang: TextLang | null;
  /** White die-cut border. */
  readonly outline: boolean;
  /** Motion (not art) reflected left to right. */
  readonly mirror: boolean;
  /** Strength of the motion, about 1. */
  readonly vigour: number;
  /** Size and place relative to the usual ones. */
  readonly zoom: number;
  readonly shiftX: number;
  /** Which wording of the action: 0 is the usual one. */
  readonly wording: number;
}

const REAL_SHARE = 0.3;
const TEXT_SHARE = 0.45;
/** Below this many pixels of type size the letters cannot be read. */
const SMALLEST_TYPE = 9;

function checkOptions({ count, seed, size = 64, frames = 8 }: PlanOptions): void {
  const whole = (name: string, value: number, low: number, high: number) => {
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new RangeError(`starter set: ${name} must be a whole number from ${low} to ${high}, got ${value}`);
    }
  };
  whole("count", count, 1, 10_000_000);
  whole("seed", seed, 0, Number.MAX_SAFE_INTEGER);
  whole("size", size, 16, 1024);
  whole("frames", frames, 8, 64);
}

/**
 * The recipes of a set. Pairs come in a seeded order, each used once before any is used again, so a small set covers
 * as much as it can; every other choice is a hash of (seed, index).
 * Throws RangeError on options out of range, unknown names, or restrictions that leave nothing.
 */
export function planStarter(options: PlanOptions): Recipe[] {
  checkOptions(options);
  const asked = options.domains ?? ["Cartoon", "Real"];
  const pairs = new Map(asked.map((domain) => [domain, pairsOf(options, domain)]));
  // Restricting to cartoon subjects leaves nothing for "Real": then that domain is simply not in the set.
  const domains = asked.filter((domain) => pairs.get(domain)!.length > 0);
  if (domains.length === 0) {
    throw new RangeError("starter set: no (subject, action) pair is left; relax `only`, `exclude` or `domains`");
  }
  const used = new Map<Domain, number>();
  const orders = new Map<string, number[]>();
  return Array.from({ length: options.count }, (_, index) => {
    const draws = new Draws(options.seed, index);
    const domain = chooseDomain(domains, draws);
    const list = pairs.get(domain)!;
    const turn = used.get(domain) ?? 0;
    used.set(domain, turn + 1);
    const epoch = Math.floor(turn / list.length);
    const key = `${domain} ${epoch}`;
    if (!orders.has(key)) orders.set(key, permutation(list.length, options.seed, epoch));
    return drawRecipe(options, index, domain, list[orders.get(key)![turn % list.length]], draws);
  });
}

function chooseDomain(domains: readonly Domain[], draws: Draws): Domain {
  if (domains.length === 1) return domains[0];
  return draws.chance("domain", REAL_SHARE) ? "Real" : "Cartoon";
}

function drawRecipe(options: PlanOptions, index: number, domain: Domain, pair: Pair, draws: Draws): Recipe {
  const { seed, size = 64, frames = 8, plain = false } = options;
  const phrase = plain || !draws.chance("text?", TEXT_SHARE) ? null : drawPhrase(size, draws);
  return {
    seed,
    index,
    domain,
    ...pair,
    size,
    frames,
    delayMs: plain ? 100 : 10 * Math.floor(draws.between("delay", 6, 13)),
    format: plain ? "gif" : drawFormat(draws),
    ground: domain === "Real" ? drawFloor(plain, draws) : drawGround(plain, draws),
    text: phrase?.text ?? null,
    textLang: phrase?.lang ?? null,
    outline: !plain && domain === "Cartoon" && draws.chance("outline", 0.35),
    mirror: !plain && draws.chance("mirror", 0.5),
    vigour: round(draws.between("vigour", 0.85, 1.1)),
    zoom: round(draws.between("zoom", 0.9, 1.04)),
    shiftX: round(draws.between("shift", -0.03, 0.03)),
    wording: !plain && draws.chance("wording", 0.25) ? 1 : 0,
  };
}

/** Three decimals, so that a recipe reads well, and no -0, so that it survives JSON unchanged. */
function round(x: number): number {
  return Math.round(x * 1000) / 1000 + 0;
}

function drawPhrase(size: number, draws: Draws): Phrase | null {
  const lang: TextLang = draws.chance("language", 0.5) ? "zh" : "en";
  const legible = PHRASES.filter((p) => p.lang === lang && (0.94 * size) / widthInEms(p.text) >= SMALLEST_TYPE);
  return legible.length > 0 ? draws.pick("phrase", legible) : null;
}

/** A few percent of other formats, so that every decoder is exercised by the set itself. */
function drawFormat(draws: Draws): FileFormat {
  const u = draws.unit("format");
  return u < 0.92 ? "gif" : u < 0.96 ? "webp" : "apng";
}

function drawGround(plain: boolean, draws: Draws): GroundId {
  if (plain || draws.chance("transparent", 0.5)) return "transparent";
  const colour = draws.pick("ground", COLOUR_IDS);
  return draws.chance("dots", 0.25) ? `${colour} dots` : colour;
}

function drawFloor(plain: boolean, draws: Draws): FloorId {
  return plain ? "gray" : draws.pick("floor", Object.keys(FLOORS) as FloorId[]);
}
