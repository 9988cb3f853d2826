// Pictures that guide I2VGen-XL, as its two encoders read them: from a file for sampling, from the first frames of stickers
// for training. What the network makes of them is models/i2vgen_xl.ts.

import { readFile } from "node:fs/promises";
import { CLIP_PREPROCESS, clipPreprocess } from "../data/clip_preprocess.ts";
import { decodeSticker } from "../data/decode/index.ts";
import { prepareFrame, toUnitRange } from "../data/frames.ts";
import type { Dataset } from "../data/store.ts";
import { compile, device, type Tensor, tensor } from "../engine/index.ts";
import type { SystemConfig } from "../models/config.ts";
import type { ImageEncoder } from "../models/image_encoder.ts";
import { openFeatures, weightsHash } from "./features.ts";
import { progress } from "./progress.ts";

/** A picture on the device: [1, size, size, 3] in [-1, 1], and [1, side, side, 3] as CLIP's encoder reads it, if there is one. */
export type PictureInput = { readonly image: Tensor; readonly prepared?: Tensor };

/**
 * The picture in a file, or the first frame of a sticker, on white and as wide and high as the frames of `config`.
 * @throws Error in one line when the system takes no pictures, or the file cannot be read as one
 */
export async function readPicture(path: string, config: SystemConfig): Promise<PictureInput> {
  if (!config.unet.image) throw new Error(`${config.system} is not guided by pictures: that takes a run of i2vgen-xl`);
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${path} cannot be read: ${error.code ?? error.message}`);
  });
  const { width, height, frames } = await decodeSticker(bytes, path, () => [0]);
  return pictureInput(prepareFrame(frames[0], width, height, config.size), config);
}

/** From bytes [size, size, 3]. */
export function pictureInput(rgb: Uint8Array, { size, imageEncoder }: SystemConfig): PictureInput {
  const pixels = new Float32Array(rgb.length);
  toUnitRange(rgb, pixels);
  const image = tensor(pixels, [1, size, size, 3]);
  if (!imageEncoder) return { image };
  const side = imageEncoder.size;
  return { image, prepared: tensor(clipInput(rgb, size, side), [1, side, side, 3]) };
}

/** Bytes [size, size, 3] as CLIP reads them, [side, side, 3]. */
function clipInput(rgb: Uint8Array, size: number, side: number): Float32Array {
  return clipPreprocess({ width: size, height: size, rgb }, { ...CLIP_PREPROCESS, size: side, crop: side });
}

export interface VectorSet {
  /** Of the first frames of records `indices`: [b, projection]. */
  batch(indices: readonly number[]): Promise<Tensor>;
  close(): void;
}

/** Pictures per call of the encoder. */
const CHUNK = 4;

/** What a frozen image encoder says of the first frames of a data set; computed once and kept in the folder `cache`. */
export async function pictureVectors(
  data: Dataset,
  encoder: ImageEncoder,
  { size, cache }: { readonly size: number; readonly cache: string },
): Promise<VectorSet> {
  const { size: side, projection = 0 } = encoder.config;
  const first = (record: number): Float32Array =>
    clipInput(data.frame(record).subarray(0, size * size * 3), size, side);
  const vectors = await openFeatures({
    dir: cache,
    name: "pictures",
    key: { data: data.fingerprint, size, weights: await weightsHash(encoder), adapter: device().name },
    count: data.length,
    values: projection,
    produce: async (write) => {
      const embed = compile(({ x }: { x: Tensor }) => ({ vectors: encoder.embed(x) }), { name: "pictures" });
      const line = progress("pictures", data.length);
      for (let i = 0; i < data.length; i += CHUNK) {
        const some = Array.from({ length: CHUNK }, (_, j) => [...first(Math.min(i + j, data.length - 1))]); // one shape
        const x = tensor(Float32Array.from(some.flat()), [CHUNK, side, side, 3]);
        const count = Math.min(CHUNK, data.length - i);
        await write(((await embed({ x }).vectors.data()) as Float32Array).subarray(0, count * projection));
        line.update(i + count);
      }
      line.done();
      return null;
    },
  });
  return {
    batch: async (indices) => tensor(await vectors.read(indices), [indices.length, projection]),
    close: vectors.close,
  };
}
