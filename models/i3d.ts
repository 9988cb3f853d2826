// I3D (Carreira & Zisserman 2017), Inception-v1 inflated to three axes, trained on Kinetics-400: the network whose logits
// the Frechet video distance compares. Layers are named as in the published i3d_pretrained_400.pt, convolutions and pools pad
// as TensorFlow's SAME does. The distance is eval/fvd.ts.

import { ShapeError, type Tensor } from "../engine/index.ts";
import { avgPool, BatchNorm, Conv, interpolate, Module, maxPool } from "../engine/nn/index.ts";
import { byRules, type Layout } from "./checkpoints/layout.ts";

export interface I3dConfig {
  readonly classes: number;
  /** Divides every width but that of the input; 1 in the published network. */
  readonly divisor: number;
  /** Of the batch norms: 1e-3 in the network as first published for torch, 1e-5 in VideoGPT's copy, which FVD tools use. */
  readonly epsilon: number;
}

export const I3D_KINETICS: I3dConfig = { classes: 400, divisor: 1, epsilon: 1e-5 };

type Three = readonly [t: number, h: number, w: number];

/** Zeros [before, after] per axis so that the output has ceil(n / stride) positions; an odd one goes behind. */
function same(x: Tensor, kernel: Three, stride: Three): [number, number][] {
  return kernel.map((k, i) => {
    const n = x.shape[1 + i];
    const total = Math.max(0, k - (n % stride[i] || stride[i]));
    return [Math.floor(total / 2), Math.ceil(total / 2)];
  });
}

/** Convolution, batch norm (as in evaluation) and ReLU; the last layer is a convolution with bias alone. */
class Unit extends Module {
  readonly conv3d: Conv;
  readonly bn: BatchNorm | null;
  readonly #kernel: Three;
  readonly #stride: Three;

  constructor(inputs: number, outputs: number, kernel: Three, o: { stride?: Three; epsilon: number | null }) {
    super();
    this.conv3d = new Conv(inputs, outputs, kernel, { bias: o.epsilon === null });
    this.bn = o.epsilon === null ? null : new BatchNorm(outputs, { eps: o.epsilon });
    this.#kernel = kernel;
    this.#stride = o.stride ?? [1, 1, 1];
  }

  forward(x: Tensor): Tensor {
    const stride = this.#stride;
    const y = x.conv(this.conv3d.weight, { stride, padding: same(x, this.#kernel, stride) });
    if (!this.bn) return this.conv3d.bias ? y.add(this.conv3d.bias) : y;
    return this.bn.forward(y).relu();
  }
}

/** Padding is zeros that take part in the maximum. */
class MaxPool extends Module {
  readonly #kernel: Three;
  readonly #stride: Three;

  constructor(kernel: Three, stride: Three) {
    super();
    this.#kernel = kernel;
    this.#stride = stride;
  }

  forward(x: Tensor): Tensor {
    const padded = x.pad([[0, 0], ...same(x, this.#kernel, this.#stride), [0, 0]]);
    return maxPool(padded, this.#kernel, { stride: this.#stride });
  }
}

const POINT: Three = [1, 1, 1];
const CUBE: Three = [3, 3, 3];

/** Widths of an Inception block: 1x1; 1x1 then 3x3; 1x1 then 3x3; 1x1 behind a pool. */
type Widths = readonly [b0: number, b1a: number, b1b: number, b2a: number, b2b: number, b3b: number];

class Inception extends Module {
  readonly b0: Unit;
  readonly b1a: Unit;
  readonly b1b: Unit;
  readonly b2a: Unit;
  readonly b2b: Unit;
  readonly b3a = new MaxPool(CUBE, POINT);
  readonly b3b: Unit;

  constructor(inputs: number, [b0, b1a, b1b, b2a, b2b, b3b]: Widths, epsilon: number) {
    super();
    this.b0 = new Unit(inputs, b0, POINT, { epsilon });
    this.b1a = new Unit(inputs, b1a, POINT, { epsilon });
    this.b1b = new Unit(b1a, b1b, CUBE, { epsilon });
    this.b2a = new Unit(inputs, b2a, POINT, { epsilon });
    this.b2b = new Unit(b2a, b2b, CUBE, { epsilon });
    this.b3b = new Unit(inputs, b3b, POINT, { epsilon });
  }

  forward(x: Tensor): Tensor {
    const [first, ...others] = [
      this.b0.forward(x),
      this.b1b.forward(this.b1a.forward(x)),
      this.b2b.forward(this.b2a.forward(x)),
      this.b3b.forward(this.b3a.forward(x)),
    ];
    return first.concat(others, -1);
  }
}

const BLOCKS: Readonly<Record<string, Widths>> = {
  Mixed_3b: [64, 96, 128, 16, 32, 32],
  Mixed_3c: [128, 128, 192, 32, 96, 64],
  Mixed_4b: [192, 96, 208, 16, 48, 64],
  Mixed_4c: [160, 112, 224, 24, 64, 64],
  Mixed_4d: [128, 128, 256, 24, 64, 64],
  Mixed_4e: [112, 144, 288, 32, 64, 64],
  Mixed_4f: [256, 160, 320, 32, 128, 128],
  Mixed_5b: [256, 160, 320, 32, 128, 128],
  Mixed_5c: [384, 192, 384, 48, 128, 128],
};

export interface I3dOutput {
  /** Mean over time of the class scores before softmax, [b, classes]: the features of the Frechet video distance. */
  readonly logits: Tensor;
  /** What the scores are computed from, [b, t', h', w', 1024]. */
  readonly pooled: Tensor;
}

export class I3d extends Module {
  readonly config: I3dConfig;
  /** In their order, under the names of the published file. */
  readonly endPoints: ReadonlyMap<string, Unit | MaxPool | Inception>;
  readonly logits: Unit;

  constructor(config: I3dConfig) {
    super();
    this.config = config;
    const { epsilon } = config;
    const wide = (n: number): number => Math.max(1, Math.floor(n / config.divisor));
    const points = new Map<string, Unit | MaxPool | Inception>();
    let width = wide(64);
    points.set("Conv3d_1a_7x7", new Unit(3, width, [7, 7, 7], { stride: [2, 2, 2], epsilon }));
    points.set("MaxPool3d_2a_3x3", new MaxPool([1, 3, 3], [1, 2, 2]));
    points.set("Conv3d_2b_1x1", new Unit(width, width, POINT, { epsilon }));
    points.set("Conv3d_2c_3x3", new Unit(width, wide(192), CUBE, { epsilon }));
    points.set("MaxPool3d_3a_3x3", new MaxPool([1, 3, 3], [1, 2, 2]));
    width = wide(192);
    for (const [name, widths] of Object.entries(BLOCKS)) {
      if (name === "Mixed_4b") points.set("MaxPool3d_4a_3x3", new MaxPool(CUBE, [2, 2, 2]));
      if (name === "Mixed_5b") points.set("MaxPool3d_5a_2x2", new MaxPool([2, 2, 2], [2, 2, 2]));
      const [b0, b1a, b1b, b2a, b2b, b3b] = widths.map(wide);
      points.set(name, new Inception(width, [b0, b1a, b1b, b2a, b2b, b3b], epsilon));
      width = b0 + b1b + b2b + b3b;
    }
    this.endPoints = points;
    this.logits = new Unit(width, config.classes, POINT, { epsilon: null });
  }

  /**
   * Videos [b, t, h, w, 3] in [-1, 1] as `i3dVideo` makes them. Time is divided by 8 and averaged over windows of 2: 9
   * frames are the least, and 193 pixels a side. Throws ShapeError for fewer.
   */
  forward(x: Tensor): I3dOutput {
    const { t, h, w } = x.dims("b t h w c");
    if (t < 9 || h < 193 || w < 193)
      throw new ShapeError(`I3D: expected at least 9 frames of 193 x 193 pixels, got ${x}`);
    let y = x;
    for (const point of this.endPoints.values()) y = point.forward(y);
    const pooled = avgPool(y, [2, 7, 7], { stride: 1 });
    return { pooled, logits: this.logits.forward(pooled).mean([1, 2, 3]) };
  }

  /** The outputs of the layers up to `last`, by name. */
  *layers(x: Tensor, last = "Mixed_5c"): Generator<readonly [name: string, y: Tensor]> {
    let y = x;
    for (const [name, point] of this.endPoints) {
      y = point.forward(y);
      yield [name, y];
      if (name === last) return;
    }
  }
}

/** Names in the published file: the layers stand at its top, and batches are counted. */
export const i3dLayout: Layout = byRules([
  { from: /.*num_batches_tracked/, to: [] },
  { from: /(logits\..*)/, to: "$1" },
  { from: /(.*)/, to: "end_points.$1" },
]);

/**
 * Frames [b, t, h, w, 3] in [0, 1] as the network was fed them for FVD: the shorter side becomes `size`, the longer one
 * ceil(side size / shorter), by bilinear interpolation without antialiasing; the middle square; [-1, 1].
 */
export function i3dVideo(x: Tensor, size = 224): Tensor {
  const { b, t, h, w, c } = x.dims("b t h w c");
  const scale = size / Math.min(h, w);
  const to = [h, w].map((side) => (side === Math.min(h, w) ? size : Math.ceil(side * scale)));
  const frames = interpolate(x.reshape([b * t, h, w, c]), { size: to, mode: "linear" });
  const [top, left] = to.map((side) => Math.floor((side - size) / 2));
  const square = frames.slice(1, top, top + size).slice(2, left, left + size);
  return square.reshape([b, t, size, size, c]).mul(2).sub(1);
}
