// Where intermediates live: each has a first and a last dispatch, and those that do not live at the same time may share
// bytes of one arena. Greedy by size, which stays close to the lower bound (the largest sum of live sizes) on training steps.

export interface Interval {
  readonly bytes: number;
  /** Index of the dispatch that writes it and of the last that reads it, both included. */
  readonly first: number;
  readonly last: number;
}

export interface Arena {
  /** Byte offset of each interval, a multiple of ALIGNMENT. */
  readonly offsets: readonly number[];
  readonly bytes: number;
  /** Bytes of each buffer that the arena is cut into (the last may be shorter); no interval lies across a cut. */
  readonly slab: number;
  /** No arena can be smaller: the most bytes that are live at once. */
  readonly lowerBound: number;
}

/** WebGPU's largest minStorageBufferOffsetAlignment: offsets that are multiples of it are legal everywhere. */
export const ALIGNMENT = 256;

function align(n: number): number {
  return Math.ceil(n / ALIGNMENT) * ALIGNMENT;
}

/**
 * Assigns offsets such that intervals that overlap in time do not overlap in memory. `maxBuffer` is the largest buffer there
 * is: a larger arena is several, and no interval may be larger than one.
 */
export function planMemory(intervals: readonly Interval[], maxBuffer: number = Number.POSITIVE_INFINITY): Arena {
  const slab = Math.floor(maxBuffer / ALIGNMENT) * ALIGNMENT;
  const order = intervals
    .map((_, i) => i)
    .sort((a, b) => intervals[b].bytes - intervals[a].bytes || intervals[a].first - intervals[b].first);
  const offsets = new Array<number>(intervals.length).fill(0);
  const placed: Placed[] = []; // by where they start
  let bytes = 0;
  for (const i of order) {
    const { first, last } = intervals[i];
    const size = align(intervals[i].bytes);
    const start = lowestGap(placed, { first, last, size }, slab);
    offsets[i] = start;
    bytes = Math.max(bytes, start + size);
    placed.splice(countBelow(placed, start), 0, { first, last, start, end: start + size });
  }
  return { offsets, bytes, slab, lowerBound: lowerBound(intervals) };
}

interface Placed extends Pick<Interval, "first" | "last"> {
  readonly start: number;
  readonly end: number;
}

/** Lowest offset at which `size` bytes lie in one slab and on nothing that lives at the same time. */
function lowestGap(
  placed: readonly Placed[],
  { first, last, size }: { readonly first: number; readonly last: number; readonly size: number },
  slab: number,
): number {
  let at = 0;
  for (const p of placed) {
    if (p.first > last || first > p.last) continue;
    if (p.start - at >= size) break;
    at = withinSlab(Math.max(at, p.end), size, slab);
  }
  return at;
}

/** How many of `placed` start below `start`. */
function countBelow(placed: readonly Placed[], start: number): number {
  let [low, high] = [0, placed.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (placed[middle].start < start) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** `at`, or the start of the next slab when `size` bytes from there would lie across its end. */
function withinSlab(at: number, size: number, slab: number): number {
  return Math.floor(at / slab) === Math.floor((at + size - 1) / slab) ? at : Math.ceil(at / slab) * slab;
}

function lowerBound(intervals: readonly Interval[]): number {
  const change = new Map<number, number>();
  for (const { bytes, first, last } of intervals) {
    change.set(first, (change.get(first) ?? 0) + align(bytes));
    change.set(last + 1, (change.get(last + 1) ?? 0) - align(bytes));
  }
  let live = 0;
  let most = 0;
  for (const t of [...change.keys()].sort((a, b) => a - b)) {
    live += change.get(t) as number;
    most = Math.max(most, live);
  }
  return most;
}
