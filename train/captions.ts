// Captions as the diffusion recipe feeds them: token ids where the text encoder learns; where it is frozen, its features of
// every different caption, computed once and kept on disk.

import { sha256Json } from "../data/hash.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { compile, device, type Tensor, tensor } from "../engine/index.ts";
import type { TextEncoder } from "../models/text_encoder.ts";
import { openFeatures, weightsHash } from "./features.ts";
import { progress } from "./progress.ts";

export interface CaptionSet {
  /** Of records `indices`: token ids i32 [b, length], or features [b, length, width]. */
  batch(indices: readonly number[]): Promise<Tensor>;
  /** Of the empty caption, without the first axis. */
  readonly empty: Tensor;
  close(): void;
}

/** Token ids of captions, cut and padded to `length`. */
export function tokenSet(captions: readonly string[], tokenizer: Tokenizer, length: number): CaptionSet {
  const ids = captions.map((c) => tokenizer.encodePadded(c, length));
  return {
    batch: async (indices) => tensor(Int32Array.from(indices.flatMap((i) => [...ids[i]])), [indices.length, length]),
    empty: tensor(tokenizer.encodePadded("", length)),
    close: () => {},
  };
}

/** Captions per call of the encoder. */
const CHUNK = 8;

/** Features of captions in a frozen encoder. Memory: the captions, and the features of a few of them. */
export async function featureSet(
  captions: readonly string[],
  tokenizer: Tokenizer,
  encoder: TextEncoder,
  { length, width, cache }: { readonly length: number; readonly width: number; readonly cache: string },
): Promise<CaptionSet> {
  const different = [...new Set(["", ...captions])];
  const places = new Map(different.map((caption, i) => [caption, i]));
  const tokens = tokenSet(different, tokenizer, length);
  const features = await openFeatures({
    dir: cache,
    name: "text",
    key: {
      ids: sha256Json(different.map((c) => [...tokenizer.encodePadded(c, length)])),
      weights: await weightsHash(encoder),
      adapter: device().name,
    },
    count: different.length,
    values: length * width,
    produce: async (write) => {
      const embed = compile(({ ids }: { ids: Tensor }) => ({ text: encoder.forward(ids) }), { name: "embed" });
      const line = progress("captions", different.length);
      for (let i = 0; i < different.length; i += CHUNK) {
        const some = Array.from({ length: CHUNK }, (_, j) => Math.min(i + j, different.length - 1)); // one shape
        const count = Math.min(CHUNK, different.length - i);
        const text = (await embed({ ids: await tokens.batch(some) }).text.data()) as Float32Array;
        await write(text.subarray(0, count * length * width));
        line.update(i + count);
      }
      line.done();
      return null;
    },
  });
  return {
    batch: async (indices) => {
      const rows = indices.map((i) => places.get(captions[i]) as number);
      return tensor(await features.read(rows), [indices.length, length, width]);
    },
    empty: tensor(await features.read([0]), [length, width]),
    close: features.close,
  };
}
