// Turns the partial frames of an animation file into whole ones, as browsers do: the canvas starts transparent, each
// patch is painted on it, and its disposal is applied before the next. Shared by GIF and APNG; knows neither format.

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** One stored frame. `paint` writes it into a straight-alpha RGBA canvas and may decode lazily. */
export interface Patch extends Rect {
  /** What becomes of the rectangle after display: left, made transparent, or put back as it was. */
  readonly disposal: "keep" | "clear" | "previous";
  readonly delayMs: number;
  paint(canvas: Uint8ClampedArray): void;
}

/** Chooses frames by index from the file's frame count and its size in pixels; an index may repeat. */
export type FrameSelection = (count: number, width: number, height: number) => readonly number[];

/**
 * What is kept of a selected frame: straight-alpha RGBA of width * height * 4 bytes in, anything out. The pixels are painted on
 * afterwards, so whoever wants them copies them.
 */
export type Develop<T> = (rgba: Uint8ClampedArray, width: number, height: number) => T;

export interface Animation<T = Uint8ClampedArray> {
  readonly width: number;
  readonly height: number;
  /** Frames in the file. */
  readonly frameCount: number;
  /** The selected frames as developed, by default straight-alpha RGBA; a repeated index shares one. */
  readonly frames: T[];
  /** Display time of each selected frame as players show it. */
  readonly delaysMs: number[];
  /** Of all frames in the file together. */
  readonly durationMs: number;
}

/** Browsers show frames that ask for 10 ms or less for 100 ms. */
export const playedDelay = (ms: number): number => (ms <= 10 ? 100 : ms);

/** Plays `patches` on a width x height canvas and keeps what is developed of the selected frames, so memory follows that. */
export function compose<T>(
  width: number,
  height: number,
  patches: readonly Patch[],
  select: FrameSelection,
  develop: Develop<T>,
  canvas: Uint8ClampedArray = new Uint8ClampedArray(width * height * 4),
): Animation<T> {
  const wanted = select(patches.length, width, height);
  const shots = new Map<number, T>();
  let before: Uint8ClampedArray | undefined;
  const last = Math.max(...wanted);
  for (let i = 0; i <= last; i++) {
    const patch = patches[i];
    const restore = patch.disposal === "previous" && i < last;
    if (restore) {
      before ??= new Uint8ClampedArray(canvas.length); // once: copies of large frames would pile up faster than they go
      before.set(canvas);
    }
    patch.paint(canvas);
    if (wanted.includes(i)) shots.set(i, develop(canvas, width, height));
    if (patch.disposal === "clear") clear(canvas, width, height, patch);
    if (restore && before) canvas.set(before);
  }
  return {
    width,
    height,
    frameCount: patches.length,
    frames: wanted.map((i) => shots.get(i)!),
    delaysMs: wanted.map((i) => playedDelay(patches[i].delayMs)),
    durationMs: patches.reduce((sum, { delayMs }) => sum + playedDelay(delayMs), 0),
  };
}

function clear(canvas: Uint8ClampedArray, width: number, height: number, rect: Rect): void {
  const right = Math.min(rect.x + rect.width, width);
  const bottom = Math.min(rect.y + rect.height, height);
  if (rect.x === 0 && right === width) canvas.fill(0, 4 * rect.y * width, 4 * bottom * width);
  else for (let y = rect.y; y < bottom; y++) canvas.fill(0, 4 * (y * width + rect.x), 4 * (y * width + right));
}
