// CLIP similarity, as the paper reads it: "the candidates are all texts in the test set". Three numbers of one measurement: D1,
// the probability of a sticker's own caption among all captions; the raw cosine (CLIPSIM of GODIVA); and how often the own
// caption is the likeliest, or among the five likeliest. The network is models/clip.ts, pictures data/clip_preprocess.ts.

import { CLIP_PREPROCESS, type ClipPreprocess, clipPreprocess } from "../data/clip_preprocess.ts";
import { sha256Json } from "../data/hash.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { compile, type Tensor, tensor } from "../engine/index.ts";
import type { Clip } from "../models/clip.ts";
import type { Clips } from "./clips.ts";
import { type ExtractOptions, type Extractor, extractFeatures, protocolOf } from "./features.ts";
import { bootstrap, mean, type Score } from "./score.ts";

/** What D1's cosines are multiplied by: the factor that OpenAI's models were trained to. */
export const SCALE = 100;

/** CLIP's image tower as a feature network: a row is the vectors of all frames of a clip, each of length 1. */
export function clipExtractor(model: Clip, hash: string, frames: number): Extractor {
  const { size, patch, width, layers } = model.config.vision;
  const preprocess: ClipPreprocess = { ...CLIP_PREPROCESS, size, crop: size };
  const step = compile(({ x }: { x: Tensor }) => ({ y: model.embedImages(x) }), { name: "clip images" });
  return {
    name: `CLIP ViT of ${layers} layers of ${width}, patches of ${patch}`,
    hash,
    preprocessing: `clip-1 ${preprocess.filter} ${size}`,
    extension: "none",
    width: frames * (model.config.vision.projection ?? 0),
    async extract(clips, _, side) {
      const frame = side * side * 3;
      const out = new Float32Array(clips.length * frames * size * size * 3);
      for (let i = 0; i < clips.length * frames; i++) {
        const rgb = clips[Math.floor(i / frames)].subarray((i % frames) * frame, ((i % frames) + 1) * frame);
        out.set(clipPreprocess({ width: side, height: side, rgb }, preprocess), i * size * size * 3);
      }
      return (await step({ x: tensor(out, [clips.length * frames, size, size, 3]) }).y.data()) as Float32Array;
    },
  };
}

/** Captions a batch of the text tower has; the last one is filled up with its last caption. */
const TEXTS = 16;

/** The vector of each text, of length 1, one after another. */
async function embedTexts(model: Clip, tokenizer: Tokenizer, texts: readonly string[]): Promise<Float32Array> {
  const { length, projection = 0 } = model.config.text;
  const step = compile(({ ids }: { ids: Tensor }) => ({ y: model.embedText(ids) }), { name: "clip texts" });
  const out = new Float32Array(texts.length * projection);
  for (let first = 0; first < texts.length; first += TEXTS) {
    const ids = new Int32Array(TEXTS * length);
    for (let i = 0; i < TEXTS; i++)
      ids.set(tokenizer.encodePadded(texts[Math.min(first + i, texts.length - 1)], length), i * length);
    const rows = (await step({ ids: tensor(ids, [TEXTS, length]) }).y.data()) as Float32Array;
    out.set(rows.subarray(0, Math.min(TEXTS, texts.length - first) * projection), first * projection);
  }
  return out;
}

/** What one clip scores. */
export interface Likeness {
  /** softmax_j(scale e.f_j) at its own caption: e is the normalised mean of the frames' vectors. */
  readonly d1: number;
  /** The same with a softmax per frame, then the mean. */
  readonly d1PerFrame: number;
  /** Mean cosine of the frames with the own caption. */
  readonly raw: number;
  /** How many captions are likelier than the own one; ties count half. */
  readonly before: number;
}

/**
 * Scores of clips with frames' vectors [n, frames, d] against candidates [m, d], all of length 1; clip i's own caption is
 * `own[i]`. In float64 and in fixed order.
 */
export function likeness(
  frames: ArrayLike<number>,
  candidates: ArrayLike<number>,
  own: readonly number[],
  { width, scale = SCALE }: { readonly width: number; readonly scale?: number },
): Likeness[] {
  const m = candidates.length / width;
  const count = frames.length / (own.length * width);
  const cosines = (vector: ArrayLike<number>, at: number): Float64Array =>
    Float64Array.from({ length: m }, (_, j) => {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += vector[at + k] * candidates[j * width + k];
      return sum;
    });
  return own.map((caption, i) => {
    const each = Array.from({ length: count }, (_, t) => cosines(frames, (i * count + t) * width));
    const whole = cosines(middle(frames, i * count * width, count, width), 0);
    const higher = whole.reduce(
      (sum, x, j) => sum + (x > whole[caption] ? 1 : 0) + (x === whole[caption] && j !== caption ? 0.5 : 0),
      0,
    );
    return {
      d1: softmaxAt(whole, caption, scale),
      d1PerFrame: mean(each.map((row) => softmaxAt(row, caption, scale))),
      raw: mean(each.map((row) => row[caption])),
      before: higher,
    };
  });
}

/** The mean of `count` vectors from `at` on, brought to length 1. */
function middle(vectors: ArrayLike<number>, at: number, count: number, width: number): Float64Array {
  const sum = new Float64Array(width);
  for (let i = 0; i < count * width; i++) sum[i % width] += vectors[at + i];
  const length = Math.sqrt(sum.reduce((s, x) => s + x * x, 0));
  return sum.map((x) => x / Math.max(length, 1e-12));
}

function softmaxAt(cosines: Float64Array, at: number, scale: number): number {
  const total = cosines.reduce((sum, x) => sum + Math.exp(scale * (x - cosines[at])), 0);
  return 1 / total;
}

export interface ClipSimilarityOptions extends ExtractOptions {
  readonly seed: number;
  readonly rounds?: number;
  /** Whether these are published weights, and the factor of cosines (default 100). */
  readonly published: boolean;
  readonly scale?: number;
}

/**
 * D1 of clips with their captions; higher is better. The candidates are the captions of both sets, for the real stickers' score
 * too, so that chance is the same for both; captions that several clips share are one candidate.
 * @throws Error when the clips have no captions, or the tokenizer more tokens than the network
 */
export async function clipScore(
  generated: Clips,
  real: Clips | null,
  extractor: Extractor,
  text: { readonly model: Clip; readonly tokenizer: Tokenizer },
  o: ClipSimilarityOptions,
): Promise<Score> {
  if (!generated.captions)
    throw new Error(`CLIP: ${generated.dir} has no metadata.jsonl with the captions of its stickers, one line each`);
  const candidates = await embedCandidates([...generated.captions, ...(real?.captions ?? [])], text);
  const rows = await measure(generated, generated.captions, extractor, candidates, o);
  const theirs = real?.captions ? await measure(real, real.captions, extractor, candidates, o) : null;
  const of = (some: readonly Likeness[]): number => mean(some.map(({ d1 }) => d1));
  const { tokenizer, model } = text;
  return {
    name: o.published ? "CLIP" : "CLIP-x",
    value: of(rows),
    better: "higher",
    protocol: protocolOf(generated, extractor, { captions: sha256Json(candidates.texts) }),
    floor: theirs && { value: of(theirs), n: theirs.length },
    interval: bootstrap(rows.length, (draw) => mean(Float64Array.from(draw(), (i) => rows[i].d1)), {
      seed: o.seed,
      rounds: o.rounds,
    }),
    seed: o.seed,
    also: {
      "CLIPSIM (raw cosine)": mean(rows.map(({ raw }) => raw)),
      "D1 per frame": mean(rows.map(({ d1PerFrame }) => d1PerFrame)),
      "top-1": mean(rows.map(({ before }) => (before < 1 ? 1 - before : 0))),
      "top-5": mean(rows.map(({ before }) => (before < 5 ? 1 : 0))),
      candidates: candidates.texts.length,
      "captions cut": mean(
        generated.captions.map((caption) => (tokenizer.fits(caption, model.config.text.length) ? 0 : 1)),
      ),
    },
  };
}

/** Texts to choose among, each once and in order, and their vectors of length 1, one after another. */
interface Candidates {
  readonly texts: readonly string[];
  readonly vectors: Float32Array;
  /** Numbers of a vector. */
  readonly width: number;
}

async function embedCandidates(
  captions: readonly string[],
  { model, tokenizer }: { readonly model: Clip; readonly tokenizer: Tokenizer },
): Promise<Candidates> {
  const { vocabulary, projection: width = 0 } = model.config.text;
  if (tokenizer.vocabSize > vocabulary)
    throw new Error(
      `CLIP: the tokenizer has ${tokenizer.vocabSize} tokens, the network only ${vocabulary}: they do not belong together`,
    );
  const texts = [...new Set(captions)].sort();
  return { texts, vectors: await embedTexts(model, tokenizer, texts), width };
}

async function measure(
  clips: Clips,
  captions: readonly string[],
  extractor: Extractor,
  { texts, vectors, width }: Candidates,
  o: ClipSimilarityOptions,
): Promise<Likeness[]> {
  const { data } = await extractFeatures(clips, extractor, o);
  const places = new Map(texts.map((caption, i) => [caption, i]));
  const own = captions.map((caption) => places.get(caption) as number);
  return likeness(data, vectors, own, { width, scale: o.scale });
}
