// The prior of VideoGPT (Yan et al. 2021, section 3.2; spec 4.2-4.4): a transformer over the codes of a video, told by a few
// tags what to make. Two objectives share one trunk: the next code from those before it, or masked codes from those that
// are seen. Attribute names are those of the authors' files. Trained by train/prior.ts; sampling is prior_sampling.ts.

import { type Parameter, type Rng, ShapeError, type Tensor } from "../engine/index.ts";
import {
  crossEntropy,
  dropout,
  Linear,
  Module,
  normalInit,
  parameter,
  quickGelu,
  zerosInit,
} from "../engine/nn/index.ts";
import { type Memory, MultiHeadAttention, OuterLayerNorm, PositionTables } from "./videogpt_blocks.ts";

/** "next": log p(z_i | z_1 .. z_{i-1}), the paper's baseline. "masked": its equation 1, which is MAGVIT's (Yu et al. 2023). */
export type Objective = "next" | "masked";

export interface PriorConfig {
  /** Grid of the codes, how many codes there are, and their features. */
  readonly grid: readonly [t: number, h: number, w: number];
  readonly codes: number;
  readonly embedding: number;
  /** Divisible by the heads and by 3. */
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly dropout: number;
  readonly attentionDropout: number;
  readonly objective: Objective;
  /** Tags that can be named, and slots for them in front of the codes; null: no conditions. */
  readonly tags: { readonly count: number; readonly slots: number } | null;
  /** Width of the features of given frames that every layer attends to; null: none. */
  readonly frames: number | null;
}

/** What the layers may look at besides the tokens. */
export interface PriorContext {
  /** i32 [b, slots]: numbers of tags; tokens of their own in front of the codes, the same set always in the same order. */
  readonly tags?: Tensor;
  /** Features of given frames [b, m, frames]. */
  readonly frames?: Tensor;
  /** Given in training: dropout acts. */
  readonly rng?: Rng;
}

interface LayerContext extends PriorContext {
  readonly causal: boolean;
  /** x is the token of slot `at`; see AttentionOptions. One memory per layer. */
  readonly memory?: Memory;
  readonly at?: Tensor;
}

/** A pre-norm layer: attention among the tokens, to given frames where there are any, and an MLP. */
class AttentionBlock extends Module {
  readonly preAttnNorm: OuterLayerNorm;
  readonly attn: MultiHeadAttention;
  readonly preEncNorm: OuterLayerNorm | null;
  readonly encAttn: MultiHeadAttention | null;
  readonly preFcNorm: OuterLayerNorm;
  /** Linear, GELU, Linear; files count what has no weights. */
  readonly fcBlock: readonly [Linear, null, Linear];
  readonly #drop: { readonly tokens: number; readonly weights: number };

  constructor({ width, heads, layers, frames, ...o }: StackConfig) {
    super();
    this.preAttnNorm = new OuterLayerNorm(width);
    this.attn = new MultiHeadAttention(width, heads, { layers });
    this.preEncNorm = frames === null ? null : new OuterLayerNorm(width);
    this.encAttn = frames === null ? null : new MultiHeadAttention(width, heads, { source: frames, layers });
    this.preFcNorm = new OuterLayerNorm(width);
    this.fcBlock = [new Linear(width, 4 * width), null, new Linear(4 * width, width)];
    this.#drop = { tokens: o.dropout, weights: o.attentionDropout };
  }

  /** [b, n, width] -> the same shape. */
  forward(x: Tensor, { frames, rng, ...o }: LayerContext): Tensor {
    const { tokens, weights } = this.#drop;
    const normed = this.preAttnNorm.forward(x);
    let h = x.add(dropout(this.attn.forward(normed, normed, { ...o, rng, dropout: weights }), tokens, rng));
    if (this.preEncNorm && this.encAttn && !frames) throw new ShapeError("prior: its layers expect given frames");
    if (this.preEncNorm && this.encAttn)
      h = h.add(dropout(this.encAttn.forward(this.preEncNorm.forward(h), frames), tokens, rng));
    const [up, , down] = this.fcBlock;
    return h.add(dropout(down.forward(quickGelu(up.forward(this.preFcNorm.forward(h)))), tokens, rng));
  }
}

/** The part of a prior's configuration that its layers have. */
export type StackConfig = Pick<
  PriorConfig,
  "grid" | "width" | "heads" | "layers" | "dropout" | "attentionDropout" | "frames"
>;

/** The layers, with the start vector and the positions of the tokens they read. */
export class AttentionStack extends Module {
  readonly rightShift: { readonly sos: Parameter };
  readonly posEmbd: PositionTables;
  readonly attnNets: readonly AttentionBlock[];

  constructor(config: StackConfig) {
    super();
    this.rightShift = { sos: parameter([config.width], normalInit(0.02)) };
    this.posEmbd = new PositionTables(config.grid, config.width);
    this.attnNets = Array.from({ length: config.layers }, () => new AttentionBlock(config));
  }

  /**
   * x [b, n, width] in raster order -> features [b, n, width]. With `shift` place i holds the code before it (the first the
   * start vector) and sees nothing behind it; without, its own, and it sees all. `prefix` [b, slots, width] stands in front.
   */
  forward(x: Tensor, { shift = true, prefix, ...o }: PriorContext & { shift?: boolean; prefix?: Tensor } = {}): Tensor {
    const { b, n, d } = x.dims("b n d");
    const start = this.start.reshape([1, 1, d]).expand([b, 1, d]);
    const placed = (shift ? start.concat([x.slice(1, 0, n - 1)], 1) : x).add(this.posEmbd.forward());
    const tokens = prefix ? prefix.concat([placed], 1) : placed;
    const y = this.attnNets.reduce((h, layer) => layer.forward(h, { ...o, causal: shift }), tokens);
    return prefix ? y.slice(1, prefix.shape[1]) : y;
  }

  /** What stands before the first code: [width]. */
  get start(): Parameter {
    return this.rightShift.sos;
  }

  /** The token of slot `at` (i32 []), complete with its position, alone: [b, 1, width]; one memory per layer. */
  next(token: Tensor, at: Tensor, memories: readonly Memory[]): Tensor {
    return this.attnNets.reduce((h, layer, i) => layer.forward(h, { causal: true, memory: memories[i], at }), token);
  }
}

export class Prior extends Module {
  readonly fcIn: Linear;
  readonly attnStack: AttentionStack;
  readonly norm: OuterLayerNorm;
  readonly fcOut: Linear;
  /** A vector in the space of the codes per tag. */
  readonly tags: Parameter | null;
  /** What stands in the place of a masked code: [embedding]; "masked" only. */
  readonly mask: Parameter | null;
  readonly config: PriorConfig;

  /** Throws ShapeError when the width does not divide into the heads, or by 3. */
  constructor(config: PriorConfig) {
    super();
    const { codes, embedding, width, tags } = config;
    this.config = config;
    this.fcIn = new Linear(embedding, width, { bias: false, init: normalInit(0.02) });
    this.attnStack = new AttentionStack(config);
    this.norm = new OuterLayerNorm(width);
    this.fcOut = new Linear(width, codes, { bias: false, init: zerosInit });
    this.tags = tags && parameter([tags.count, embedding], normalInit(1));
    this.mask = config.objective === "masked" ? parameter([embedding], normalInit(1)) : null;
  }

  /** Places in the grid. */
  get length(): number {
    return this.config.grid.reduce((a, b) => a * b, 1);
  }

  /** Vectors of codes in raster order, [b, n, embedding] -> logits [b, n, codes]. */
  forward(vectors: Tensor, { tags, ...o }: PriorContext = {}): Tensor {
    const { n } = vectors.dims("b n d");
    if (n !== this.length) throw new ShapeError(`prior: expected ${this.length} codes, got ${vectors}`);
    const shift = this.config.objective === "next";
    return this.logits(this.features(vectors, { tags, ...o, shift }));
  }

  /** What the layers make of `vectors`, before the final norm: [b, n, width]. */
  features(vectors: Tensor, { tags, ...o }: PriorContext & { shift: boolean }): Tensor {
    return this.attnStack.forward(this.fcIn.forward(vectors), { ...o, prefix: this.prefix(tags) });
  }

  /** Features [b, n, width] -> logits [b, n, codes]. */
  logits(features: Tensor): Tensor {
    return this.fcOut.forward(this.norm.forward(features));
  }

  /** Tags i32 [b, slots] -> their tokens [b, slots, width]; undefined for a prior without tags. */
  prefix(tags: Tensor | undefined): Tensor | undefined {
    const slots = this.config.tags?.slots;
    if (tags?.shape[1] !== slots) throw new ShapeError(`prior: expected tags "b ${slots ?? "none"}", got ${tags}`);
    return tags && this.embedTags(tags);
  }

  /** Tags i32 [b, m] -> [b, m, width]. */
  embedTags(tags: Tensor): Tensor {
    if (!this.tags) throw new Error("prior: it has no tags");
    return this.fcIn.forward(this.tags.gatherRows(tags));
  }

  /**
   * Negative log-likelihood per code in nats, of `codes` i32 [b, n] with vectors `table` [codes, embedding].
   *     next:    - 1/n sum_i log p(z_i | z_1 .. z_{i-1}, c)
   *     masked:  - 1/|M| sum over i in M of log p(z_i | zbar, c), M drawn as `drawMask` does
   */
  loss(codes: Tensor, table: Tensor, rng: Rng, context: PriorContext = {}): Tensor {
    const o = { ...context, rng };
    if (this.config.objective === "next") return crossEntropy(this.forward(table.gatherRows(codes), o), codes);
    const masked = drawMask(codes, rng);
    const each = crossEntropy(this.forward(this.corrupt(codes, table, masked), o), codes, { reduction: "none" });
    const weight = masked.cast("f32");
    return each.mul(weight).sum().div(weight.sum());
  }

  /**
   * zbar of the paper's equation 1 as vectors [b, n, embedding]: [MASK] where `masked` (bool [b, n]), else the codes. Conditions
   * here are tags, which stand before the codes, so no masked place has a condition of its own to show instead.
   */
  corrupt(codes: Tensor, table: Tensor, masked: Tensor): Tensor {
    if (!this.mask) throw new Error('prior: only the objective "masked" has a [MASK] vector');
    return masked.reshape([...masked.shape, 1]).where(this.mask, table.gatherRows(codes));
  }
}

/** bool [b, n]: each row masks ceil(n cos(pi u / 2)) places at random, u ~ U[0, 1): at least one. `like` has the shape. */
export function drawMask(like: Tensor, rng: Rng): Tensor {
  const { b, n } = like.dims("b n");
  const ratio = rng
    .uniform([b, 1])
    .mul(Math.PI / 2)
    .cos();
  return lowest(rng.uniform([b, n]), ratio.mul(n).ceil().maximum(1));
}

/** bool [b, n]: the `count` (f32 [b, 1] or []) smallest of each row; equal ones in order. */
export function lowest(x: Tensor, count: Tensor): Tensor {
  return x.argsort().argsort().cast("f32").less(count);
}
