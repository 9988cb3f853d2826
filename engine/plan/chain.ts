// Neighbouring dispatches that are too small to be worth one each become one (kernels/chain.ts). Decided when all kernels are
// written and before memory is: what a chain reads or writes lives as long as the chain. Called by plan.ts.

import { chainKernel, type Kernel, takeApart } from "../../kernels/chain.ts";
import type { Caps } from "../../kernels/wgsl.ts";
import { boundBytes } from "./explain.ts";
import type { Dispatch, Place } from "./plan.ts";

export interface ChainOptions {
  /** Name of a place: two with the same name are the same memory. */
  readonly keyOf: (place: Place) => string;
  /** Chains whatever can be chained, even if that is one more text to compile: for tests. */
  readonly always: boolean;
}

/** Most dispatches of one chain. */
const LONGEST = 8;
/**
 * What a dispatch may do, at most, to count as small. On a software adapter starting one takes as long as moving 128 KiB (25 us
 * on llvmpipe: three threads wake one another), and a chain has one core. On a GPU only what is a single workgroup anyway is small.
 */
const SMALL = { bytes: 2 ** 17, flops: 2 ** 16 };

/** What chains have to save before a plan gets any: so many dispatches, 0.2 ms on llvmpipe, and this share of all. */
const WORTH = { dispatches: 8, share: 1 / 5 };

/** A chain that could be made: so many dispatches from each of these places on. */
interface Candidate {
  readonly length: number;
  readonly starts: number[];
}

/**
 * The dispatches in their order, some of them joined. A chain is another text to compile, so it must be at least half made of
 * texts that the plan has no other use for: chains come where something repeats, such as the norms of all layers. Those that
 * save most dispatches come first. Where all of them together save little, there are none.
 */
export function chained(dispatches: readonly Dispatch[], caps: Caps, options: ChainOptions): Dispatch[] {
  const known = new Map<string, Kernel | null>();
  const kernels = dispatches.map(({ source }) => {
    if (!known.has(source.wgsl)) known.set(source.wgsl, takeApart(source));
    const parts = known.get(source.wgsl);
    return parts ? { ...parts, source } : null;
  });
  const small = dispatches.map((d, i) => {
    const kernel = kernels[i];
    return kernel !== null && isSmall(d, kernel, caps) ? kernel : null;
  });
  const uses = new Map<string, number>();
  for (const { source } of dispatches) uses.set(source.wgsl, (uses.get(source.wgsl) ?? 0) + 1);
  const saves = ({ length, starts }: Candidate): number => (length - 1) * starts.length;
  const candidates = candidatesAmong(dispatches, small, caps, options).sort((a, b) => saves(b) - saves(a));
  const taken = new Map<number, number>(); // first dispatch of a chain -> its length
  const free = dispatches.map(() => true);
  for (const { length, starts } of candidates) {
    const chosen: number[] = [];
    for (const s of starts) {
      const apart = chosen.length === 0 || s >= chosen[chosen.length - 1] + length;
      if (apart && free.slice(s, s + length).every(Boolean)) chosen.push(s);
    }
    if (chosen.length === 0) continue;
    const texts = dispatches.slice(chosen[0], chosen[0] + length).map((d) => d.source.wgsl);
    const left = new Map(texts.map((t) => [t, (uses.get(t) as number) - chosen.length * count(texts, t)]));
    const gone = [...left].reduce((sum, [t, n]) => sum + (n === 0 ? t.length : 0), 0);
    if (!options.always && 2 * gone < texts.join("").length) continue;
    for (const [t, n] of left) uses.set(t, n);
    for (const s of chosen) {
      taken.set(s, length);
      free.fill(false, s, s + length);
    }
  }
  const saved = [...taken.values()].reduce((sum, length) => sum + length - 1, 0);
  const worth = saved >= WORTH.dispatches && saved >= WORTH.share * dispatches.length;
  if (!options.always && !worth) return [...dispatches];
  const out: Dispatch[] = [];
  for (let i = 0; i < dispatches.length; i += taken.get(i) ?? 1) {
    const length = taken.get(i) ?? 1;
    const part = dispatches.slice(i, i + length);
    const chain = length > 1 ? joined(part, small.slice(i, i + length) as Kernel[], caps, options) : null;
    out.push(...(chain ? [chain] : part));
  }
  return out;
}

const count = (list: readonly string[], t: string): number => list.filter((u) => u === t).length;

function isSmall(d: Dispatch, { size, remembers }: Kernel, caps: Caps): boolean {
  const [x, y, z] = d.source.workgroups;
  if (y * z !== 1 || size > 256 || (remembers && x > 1)) return false;
  if (caps.adapter === "gpu") return x === 1;
  return (d.source.bytes ?? boundBytes(d)) <= SMALL.bytes && (d.source.flops ?? Infinity) <= SMALL.flops;
}

/** Everything that can be chained, by what its text would be. */
function candidatesAmong(
  dispatches: readonly Dispatch[],
  small: readonly (Kernel | null)[],
  caps: Caps,
  options: ChainOptions,
): Candidate[] {
  const found = new Map<string, Candidate | null>();
  const ids = new Map<string, number>();
  for (const { source } of dispatches) if (!ids.has(source.wgsl)) ids.set(source.wgsl, ids.size);
  for (let i = 0; i < dispatches.length; i++) {
    for (let n = 2; n <= LONGEST && small[i + n - 1]; n++) {
      if (!small[i]) break;
      const part = dispatches.slice(i, i + n);
      const { places, operands } = bindingsOf(part, options);
      if (places.length > caps.maxBindings) break;
      const key = part.map((d, j) => `${ids.get(d.source.wgsl)}:${operands[j].join()}`).join("|");
      const known = found.get(key);
      if (known) known.starts.push(i);
      else if (known === undefined) {
        const fits = chainKernel(small.slice(i, i + n) as Kernel[], operands, places.length, caps) !== null;
        found.set(key, fits ? { length: n, starts: [i] } : null);
      }
    }
  }
  return [...found.values()].filter((c) => c !== null);
}

/** The places that dispatches bind, each once, and which of them are the operands of each. */
function bindingsOf(
  part: readonly Dispatch[],
  { keyOf }: ChainOptions,
): { places: Place[]; slots: Dispatch["slots"][number][]; operands: number[][] } {
  const places = new Map<string, number>();
  const list: Place[] = [];
  const slots: Dispatch["slots"][number][] = [];
  const operands = part.map((d) =>
    d.places.map((p, j) => {
      const key = keyOf(p);
      const known = places.get(key);
      if (known !== undefined) return known;
      places.set(key, list.length);
      slots.push(d.slots[j]);
      return list.push(p) - 1;
    }),
  );
  return { places: list, slots, operands };
}

function joined(
  part: readonly Dispatch[],
  kernels: readonly Kernel[],
  caps: Caps,
  options: ChainOptions,
): Dispatch | null {
  const { places, slots, operands } = bindingsOf(part, options);
  const source = chainKernel(kernels, operands, places.length, caps);
  return (
    source && {
      source,
      places,
      slots,
      groups: [...new Set(part.flatMap((d) => d.groups))],
      written: new Set(part.flatMap((d) => [...d.written])),
    }
  );
}
