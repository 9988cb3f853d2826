// VideoFactory (Wang et al. 2023, arXiv 2305.10874): Make-A-Video's layers, and attention in which spatial and temporal
// features ask each other, the roles swapped from layer to layer. With s the features before a temporal layer and t those
// behind it, cut into windows of 8 frames, 8 rows and 8 columns,
//
//     y = t + gamma softmax(q k^T / sqrt(d)) v     q from s, k and v from t, in layers 0, 2, ...; exchanged in 1, 3, ...
//
// One such attention per stage of the network, shared by its layers, nine in all; gamma = 0 at the start. The paper's
// code is not public: the design is chosen for its parameter count (spec 3.3). Where the layers go is video_unet.ts.

import { ones, type Parameter, ShapeError, type Tensor } from "../engine/index.ts";
import {
  constantInit,
  Linear,
  layerNorm,
  Module,
  parameter,
  scaledDotProductAttention,
  zerosInit,
} from "../engine/nn/index.ts";
import type { SwapConfig } from "./config.ts";

/**
 * Swapped attention for maps of `channels`. By default one head with queries and keys of channels / 8 and values of all
 * channels, scaled by gamma. With `heads` multi-head attention between normalised features with a projection at the end,
 * which starts at zero in gamma's place; the norms have no weights, so that the count is spec 3.3's for that design.
 */
export class SwapAttention extends Module {
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly gamma: Parameter | null;
  readonly out: Linear | null;
  readonly #heads: number;
  readonly #window: SwapConfig["window"];

  /** Throws ShapeError when 8 does not divide the channels of the one head. */
  constructor(channels: number, { heads, window }: SwapConfig) {
    super();
    if (!heads && channels % 8 !== 0)
      throw new ShapeError(`SwapAttention: queries and keys take an eighth of the channels, and there are ${channels}`);
    const inner = heads ? heads.count * heads.dim : channels;
    const narrow = heads ? inner : channels / 8;
    const bias = heads === null;
    this.query = new Linear(channels, narrow, { bias });
    this.key = new Linear(channels, narrow, { bias });
    this.value = new Linear(channels, inner, { bias });
    this.gamma = heads ? null : parameter([1], constantInit(0));
    this.out = heads ? new Linear(inner, channels, { init: zerosInit }) : null;
    this.#heads = heads?.count ?? 1;
    this.#window = window;
  }

  /** Features before and behind a temporal layer, [b, f, h, w, c] each -> the same shape; `swapped`: t asks s. */
  forward(spatial: Tensor, temporal: Tensor, swapped: boolean): Tensor {
    const [asking, answering] = swapped ? [temporal, spatial] : [spatial, temporal];
    const { f, h, w } = temporal.dims("b f h w c");
    const grid = windowGrid([f, h, w], this.#window);
    const split = (x: Tensor): Tensor => {
      const tokens = intoWindows(x, grid);
      return tokens.reshape([...tokens.shape.slice(0, 2), this.#heads, -1]);
    };
    const normal = (x: Tensor): Tensor => (this.out ? layerNorm(x) : x);
    const q = split(this.query.forward(normal(asking)));
    const k = split(this.key.forward(normal(answering)));
    const v = split(this.value.forward(normal(answering)));
    const seen = scaledDotProductAttention(q, k, v, { mask: insideMask(temporal, grid) });
    const o = fromWindows(seen.reshape([...seen.shape.slice(0, 2), -1]), temporal, grid);
    if (this.out) return temporal.add(this.out.forward(o));
    return temporal.add(o.mul(this.gamma as Parameter));
  }
}

/** How a map is cut along frames, rows and columns: the side of a window, how many there are, what the last overhangs. */
interface WindowGrid {
  readonly side: readonly number[];
  readonly count: readonly number[];
  readonly over: readonly number[];
}

/** Windows are no larger than the map: clips of 8 frames have one along time, maps of 8 pixels and less one in all. */
function windowGrid(map: readonly number[], window: readonly number[]): WindowGrid {
  const side = map.map((n, axis) => Math.min(n, window[axis]));
  const count = map.map((n, axis) => Math.ceil(n / side[axis]));
  return { side, count, over: map.map((n, axis) => count[axis] * side[axis] - n) };
}

/** [b, f, h, w, c] -> [b windows, tokens, c], zeros where the last windows overhang the map. */
function intoWindows(x: Tensor, { side: [f, h, w], over }: WindowGrid): Tensor {
  const padded = x.pad([[0, 0], ...over.map((n) => [0, n] as const), [0, 0]]);
  return padded.rearrange("b (nf f) (nh h) (nw w) c -> (b nf nh nw) (f h w) c", { f, h, w });
}

/** The way back, to the shape of the map `like` but for its channels. */
function fromWindows(x: Tensor, like: Tensor, { side: [f, h, w], count: [nf, nh, nw] }: WindowGrid): Tensor {
  const padded = x.rearrange("(b nf nh nw) (f h w) c -> b (nf f) (nh h) (nw w) c", { nf, nh, nw, f, h, w });
  return [1, 2, 3].reduce((y, axis) => y.slice(axis, 0, like.shape[axis]), padded);
}

/** Which keys of each window lie on the map, bool [b windows, 1, 1, tokens]; undefined where all do. */
function insideMask(like: Tensor, grid: WindowGrid): Tensor | undefined {
  if (grid.over.every((n) => n === 0)) return undefined;
  const tokens = intoWindows(ones([...like.shape.slice(0, 4), 1]), grid);
  return tokens.greater(0).reshape([tokens.shape[0], 1, 1, -1]);
}
