// Where intermediates live: each has a first and a last dispatch, and those that do not live at the same time may share
// bytes of one arena. Greedy by size, which stays close to the lower bound (the largest sum of live sizes) on training steps.

export interface Interval {
  readonly bytes: number;
  /** Index of the dispatch group that writes it and of the last that reads it, both included. */
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
  const placed: number[] = [];
  let bytes = 0;
  for (const i of order) {
    const size = align(intervals[i].bytes);
    const busy = placed.filter((j) => overlaps(intervals[i], intervals[j])).sort((a, b) => offsets[a] - offsets[b]);
    offsets[i] = firstGap(
      busy.map((j) => [offsets[j], offsets[j] + align(intervals[j].bytes)]),
      size,
      slab,
    );
    bytes = Math.max(bytes, offsets[i] + size);
    placed.push(i);
  }
  return { offsets, bytes, slab, lowerBound: lowerBound(intervals) };
}

function overlaps(a: Interval, b: Interval): boolean {
  return a.first <= b.last && b.first <= a.last;
}

/** Lowest offset at which `size` bytes fit between busy ranges sorted by start, all of them in one slab. */
function firstGap(busy: readonly (readonly [start: number, end: number])[], size: number, slab: number): number {
  let at = 0;
  for (const [start, end] of busy) {
    if (start - at >= size) break;
    at = withinSlab(Math.max(at, end), size, slab);
  }
  return at;
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
