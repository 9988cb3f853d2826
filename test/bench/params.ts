// The parameters of the models, in the order that fixes their values: parameter j is R(shape, 1000 + j, scale). Shapes are
// those of PyTorch for convolutions, [out, in, ...kernel], and [in, out] for linear layers. Called by the frameworks.

import { numel, R } from "./data.ts";

export type Kind = "lin" | "conv" | "zeros" | "ones" | "table" | "code";

export interface Param {
  readonly name: string;
  readonly shape: readonly number[];
  readonly kind: Kind;
}

export interface LoadedParam extends Param {
  readonly data: Float32Array;
}

const param = (name: string, shape: readonly number[], kind: Kind): Param => ({ name, shape, kind });
const lin = (name: string, i: number, o: number): Param[] => [
  param(`${name}.w`, [i, o], "lin"),
  param(`${name}.b`, [o], "zeros"),
];
const conv = (name: string, i: number, o: number, kernel: readonly number[]): Param[] => [
  param(`${name}.w`, [o, i, ...kernel], "conv"),
  param(`${name}.b`, [o], "zeros"),
];
const norm = (name: string, c: number): Param[] => [param(`${name}.g`, [c], "ones"), param(`${name}.b`, [c], "zeros")];
const mha = (name: string, c: number, context = c): Param[] => [
  ...lin(`${name}.q`, c, c),
  ...lin(`${name}.k`, context, c),
  ...lin(`${name}.v`, context, c),
  ...lin(`${name}.o`, c, c),
];

function mlp(): Param[] {
  return [...lin("l1", 784, 512), ...lin("l2", 512, 512), ...lin("l3", 512, 10)];
}

/** The small UNet; `temporal` adds what makes it the video one after every residual block. */
function unet(temporal: boolean): Param[] {
  const square = [3, 3];
  const res = (name: string, i: number, o: number): Param[] => [
    ...norm(`${name}.n1`, i),
    ...conv(`${name}.c1`, i, o, square),
    ...lin(`${name}.t`, 256, o),
    ...norm(`${name}.n2`, o),
    ...conv(`${name}.c2`, o, o, square),
    ...(i === o ? [] : conv(`${name}.s`, i, o, [1, 1])),
    ...(temporal
      ? [
          ...norm(`${name}.tn`, o),
          ...conv(`${name}.tc`, o, o, [3, 1]),
          ...norm(`${name}.ta_n`, o),
          ...mha(`${name}.ta`, o),
        ]
      : []),
  ];
  return [
    ...lin("t1", 64, 256),
    ...lin("t2", 256, 256),
    ...conv("in", 4, 64, square),
    ...res("r0", 64, 64),
    ...res("r1", 64, 128),
    ...res("r2", 128, 128),
    ...res("r3", 128, 64),
    ...conv("down", 64, 64, square),
    ...norm("sa_n", 128),
    ...mha("sa", 128),
    ...norm("ca_n", 128),
    ...mha("ca", 128, 64),
    ...conv("up", 128, 64, square),
    ...norm("on", 64),
    ...conv("out", 64, 4, square),
  ];
}

function gpt(): Param[] {
  const layer = (i: number): Param[] => [
    ...norm(`l${i}.n1`, 128),
    ...mha(`l${i}.a`, 128),
    ...norm(`l${i}.n2`, 128),
    ...lin(`l${i}.m1`, 128, 512),
    ...lin(`l${i}.m2`, 512, 128),
  ];
  return [
    param("tok", [256, 128], "table"),
    param("pos", [256, 128], "table"),
    ...[0, 1, 2, 3].flatMap(layer),
    ...norm("nf", 128),
    param("head.w", [128, 256], "lin"),
  ];
}

function vqvae(): Param[] {
  const cube = [3, 3, 3];
  return [
    ...conv("e1", 3, 32, cube),
    ...conv("e2", 32, 64, cube),
    ...conv("e3", 64, 32, cube),
    param("code", [256, 32], "code"),
    ...conv("d1", 32, 64, cube),
    ...conv("d2", 64, 32, cube),
    ...conv("d3", 32, 3, cube),
  ];
}

export type ModelName = "mlp" | "unet" | "videoUnet" | "gpt" | "vqvae";

/** Which parameters each model has, in order. */
export const MODELS: Readonly<Record<ModelName, readonly Param[]>> = {
  mlp: mlp(),
  unet: unet(false),
  videoUnet: unet(true),
  gpt: gpt(),
  vqvae: vqvae(),
};

function values({ shape, kind }: Param, j: number): Float32Array {
  if (kind === "zeros") return new Float32Array(numel(shape));
  if (kind === "ones") return new Float32Array(numel(shape)).fill(1);
  const scales = { table: 0.1, code: 0.5, lin: 1 / Math.sqrt(shape[0]), conv: 1 / Math.sqrt(numel(shape.slice(1))) };
  return R(shape, 1000 + j, scales[kind]);
}

/** The parameters of a model with their initial values. */
export function loadParams(model: ModelName): LoadedParam[] {
  return MODELS[model].map((p, j) => ({ ...p, data: values(p, j) }));
}
