// One line of progress on standard error: rewritten in place on a terminal, a new line every few seconds elsewhere, so
// that logs stay readable. Standard output is left for results. Used by the commands and, through log.ts, by training.

export interface Progress {
  /** `done` so far, of `of` where the total has changed; `note` is shown at the end of the line, e.g. the loss. */
  update(done: number, note?: string, of?: number): void;
  /** Ends the line with the time that it took. */
  done(note?: string): void;
}

export interface ProgressOptions {
  /** Where a resumed job starts, so that the speed counts only what this process did. */
  from?: number;
  /** What the speed counts, where it is not units: `{ name: "stickers", each: 16 }` for a unit of 16 stickers. */
  items?: { readonly name: string; readonly each: number };
  stream?: { isTTY?: boolean; columns?: number; write(text: string): unknown };
  /** Milliseconds, only differences count. */
  clock?: () => number;
}

const TERMINAL_INTERVAL = 100; // ms between redraws
const LOG_INTERVAL = 10_000; // ms between lines

/** Starts a line for a job of `total` units; 0 where that is not known. */
export function progress(label: string, total: number, options: ProgressOptions = {}): Progress {
  const { from = 0, items, stream = process.stderr, clock = () => performance.now() } = options;
  const terminal = stream.isTTY === true;
  const started = clock();
  // The first update may have waited for kernels to compile: the rate is that of what came after it.
  let first: { readonly at: number; readonly done: number } | undefined;
  let shown = terminal ? Number.NEGATIVE_INFINITY : started;
  let last = from;
  let all = total;
  const share = (): string => (all > 0 ? `${last}/${all}` : String(last));

  const write = (text: string, end: string) => {
    const line = terminal ? `\r${text.slice(0, (stream.columns || 80) - 1)}\x1b[K` : text;
    stream.write(line + end);
  };
  return {
    update(done, note = "", of = all) {
      last = done;
      all = of;
      const now = clock();
      first ??= { at: now, done };
      if (now - shown < (terminal ? TERMINAL_INTERVAL : LOG_INTERVAL)) return;
      shown = now;
      const rate = done > first.done ? (1000 * (done - first.done)) / (now - first.at) : 0;
      const pace = items ? `${number(rate * items.each)} ${items.name}/s` : `${number(rate)}/s`;
      const left = all > 0 ? [`${duration((all - done) / rate)} left`] : [];
      const speed = rate > 0 ? [pace, ...left] : [];
      write(join(label, share(), ...speed, note), terminal ? "" : "\n");
    },
    done(note = "") {
      write(join(label, share(), `in ${duration((clock() - started) / 1000)}`, note), "\n");
    },
  };
}

function join(...parts: string[]): string {
  return parts.filter((part) => part !== "").join("  ");
}

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
}

/** "8.1 s", "42 s", "3 min 20 s", "2 h 05 min". */
function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}
