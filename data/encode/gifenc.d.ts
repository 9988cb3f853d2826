// Types for the part of `gifenc` 1.0.3 that gif.ts uses; the package ships none.

declare module "gifenc" {
  export type Rgb = [number, number, number];

  export interface FrameOptions {
    /** Written as the global colour table with the first frame and as a local one with any later frame. */
    palette?: readonly Rgb[];
    /** Bits per pixel of the LZW stream, 2..8. */
    colorDepth?: number;
    transparent?: boolean;
    transparentIndex?: number;
    /** Milliseconds; stored as centiseconds. */
    delay?: number;
    /** -1 once, 0 forever, n > 0: n further plays. Read from the first frame only. */
    repeat?: number;
    /** GIF disposal method 0..3; -1 chooses 2 for transparent frames and 0 for others. */
    dispose?: number;
  }

  export interface Encoder {
    readonly stream: { writeByte(byte: number): void; writeBytes(bytes: ArrayLike<number>): void };
    writeFrame(index: Uint8Array, width: number, height: number, options?: FrameOptions): void;
    finish(): void;
    bytes(): Uint8Array;
  }

  export interface Gifenc {
    GIFEncoder(): Encoder;
    /** Reads the whole `buffer` behind `rgba`, ignoring byteOffset: pass an array that owns its buffer. */
    quantize(rgba: Uint8Array, maxColors: number, options?: { format?: "rgb565" | "rgb444" | "rgba4444" }): Rgb[];
  }
}
