// EfficientNet (Tan & Le 2019), the classifier that the paper sorts stickers into real and cartoon with. Layers are named as in
// torchvision's state dict. How it is trained and asked is train/domain.ts.

import { type Rng, type Tensor, tensor } from "../engine/index.ts";
import { BatchNorm, Conv, dropout, Linear, Module } from "../engine/nn/index.ts";
import { byName, type Layout } from "./checkpoints/layout.ts";

export interface EfficientNetConfig {
  readonly classes: number;
  /** Multiplies every width but that of the input; widths are then rounded to eights. 1 in B0. */
  readonly width: number;
  /** Share of the features left out in training, and of the last residual branch of all; earlier ones in proportion. */
  readonly dropout: number;
  readonly dropPath: number;
}

export const EFFICIENTNET_B0: EfficientNetConfig = { classes: 1000, width: 1, dropout: 0.2, dropPath: 0.2 };

/** Table 1 of the paper: expansion, kernel, stride of the first block, inputs, outputs, blocks. */
const STAGES = [
  [1, 3, 1, 32, 16, 1],
  [6, 3, 2, 16, 24, 2],
  [6, 5, 2, 24, 40, 2],
  [6, 3, 2, 40, 80, 3],
  [6, 5, 1, 80, 112, 3],
  [6, 5, 2, 112, 192, 4],
  [6, 3, 1, 192, 320, 1],
] as const;

export interface ClassifierMode {
  /** Trains: batch statistics, and what is left out is drawn from here. Absent: evaluation. */
  readonly rng?: Rng;
}

/** The multiple of 8 next to n, but no less than nine tenths of it. */
function eights(n: number): number {
  const near = Math.max(8, Math.floor((n + 4) / 8) * 8);
  return near < 0.9 * n ? near + 8 : near;
}

/** Convolution without bias, batch norm, and SiLU where asked for; "0" and "1" in files. */
class Unit extends Module {
  readonly 0: Conv;
  readonly 1: BatchNorm;
  readonly #active: boolean;

  constructor(
    inputs: number,
    outputs: number,
    o: { kernel?: number; stride?: number; groups?: number; active?: boolean },
  ) {
    super();
    const { kernel = 1, stride = 1, groups = 1, active = true } = o;
    this[0] = new Conv(inputs, outputs, [kernel, kernel], { stride, groups, padding: (kernel - 1) / 2, bias: false });
    this[1] = new BatchNorm(outputs);
    this.#active = active;
  }

  forward(x: Tensor, { rng }: ClassifierMode): Tensor {
    const y = this[1].forward(this[0].forward(x), { training: rng !== undefined });
    return this.#active ? y.silu() : y;
  }
}

/** Squeeze and excitation (Hu et al. 2018): channels are weighed by what all positions say. */
class Excitation extends Module {
  readonly fc1: Conv;
  readonly fc2: Conv;

  constructor(channels: number, squeezed: number) {
    super();
    this.fc1 = new Conv(channels, squeezed, [1, 1]);
    this.fc2 = new Conv(squeezed, channels, [1, 1]);
  }

  forward(x: Tensor): Tensor {
    const means = x.mean([1, 2], { keepdims: true });
    return x.mul(this.fc2.forward(this.fc1.forward(means).silu()).sigmoid());
  }
}

/** Widen, convolve each channel for itself, weigh, narrow (Sandler et al. 2018); the input is added where shapes allow. */
class InvertedResidual extends Module {
  readonly block: readonly (Unit | Excitation)[];
  readonly #residual: boolean;
  readonly #drop: number;

  constructor(inputs: number, outputs: number, o: { expand: number; kernel: number; stride: number; drop: number }) {
    super();
    const inner = eights(inputs * o.expand);
    this.block = [
      ...(inner === inputs ? [] : [new Unit(inputs, inner, {})]),
      new Unit(inner, inner, { kernel: o.kernel, stride: o.stride, groups: inner }),
      new Excitation(inner, Math.max(1, Math.floor(inputs / 4))),
      new Unit(inner, outputs, { active: false }),
    ];
    this.#residual = o.stride === 1 && inputs === outputs;
    this.#drop = o.drop;
  }

  forward(x: Tensor, mode: ClassifierMode): Tensor {
    const y = this.block.reduce((z, layer) => layer.forward(z, mode), x);
    return this.#residual ? x.add(dropRows(y, this.#drop, mode.rng)) : y;
  }
}

/** Stochastic depth (Huang et al. 2016): leaves out the branch for a share `p` of the pictures and scales it up for the rest. */
function dropRows(y: Tensor, p: number, rng: Rng | undefined): Tensor {
  if (!rng || p === 0) return y;
  const rows = [y.shape[0], ...y.shape.slice(1).map(() => 1)];
  const kept = rng.uniform(rows).greaterEqual(p).cast("f32");
  return y.mul(kept.div(1 - p));
}

export class EfficientNet extends Module {
  readonly config: EfficientNetConfig;
  readonly features: readonly (Unit | readonly InvertedResidual[])[];
  /** Number 0 of torchvision is the dropout. */
  readonly classifier: ReadonlyMap<string, Linear>;

  constructor(config: EfficientNetConfig) {
    super();
    this.config = config;
    const wide = (n: number): number => eights(n * config.width);
    const total = STAGES.reduce((sum, stage) => sum + stage[5], 0);
    let number = 0;
    const stages = STAGES.map(([expand, kernel, stride, inputs, outputs, blocks]) =>
      Array.from({ length: blocks }, (_, i) => {
        const drop = (config.dropPath * number++) / total;
        return new InvertedResidual(wide(i === 0 ? inputs : outputs), wide(outputs), {
          expand,
          kernel,
          stride: i === 0 ? stride : 1,
          drop,
        });
      }),
    );
    const last = wide(STAGES[STAGES.length - 1][4]);
    const first = new Unit(3, wide(STAGES[0][3]), { kernel: 3, stride: 2 });
    this.features = [first, ...stages, new Unit(last, 4 * last, {})];
    this.classifier = new Map([["1", new Linear(4 * last, config.classes)]]);
  }

  /** Pictures [b, h, w, 3] as `efficientNetInput` makes them -> scores before softmax [b, classes]. */
  forward(x: Tensor, mode: ClassifierMode = {}): Tensor {
    let y = x;
    for (const stage of this.features) {
      y = stage instanceof Unit ? stage.forward(y, mode) : stage.reduce((z, block) => block.forward(z, mode), y);
    }
    const pooled = dropout(y.mean([1, 2]), this.config.dropout, mode.rng);
    return this.classifier.get("1")!.forward(pooled);
  }
}

const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];

/** Bytes [b, h, w, 3] as f32 from 0 to 255 -> what the published weights are fed: ImageNet's means and deviations. */
export function efficientNetInput(pixels: Tensor): Tensor {
  const [mean, deviation] = [MEAN, DEVIATION].map((row) => tensor(row.map((v) => 255 * v)));
  return pixels.sub(mean).div(deviation);
}

/** Names of torchvision's files are ours, beside counts of batches. */
export const efficientNetLayout: Layout = byName((name) => (name.endsWith("num_batches_tracked") ? null : name));
