// A quick proof that this adapter computes what the ops mean: one small random call of every op, and one larger call of each
// kernel family, so that the variants which training uses run too, on the open device against the float64 reference.
// `gifgrad doctor` prints it; it is not the test suite, which draws many shapes and checks gradients too.

import type { Draw } from "../kernels/wgsl.ts";
import { vjp } from "./autograd.ts";
import { toData } from "./dtype.ts";
import { type AnyOp, allOps, type Sample } from "./ops/op.ts";
import { evaluate64, hostValues } from "./reference.ts";
import { numel } from "./shape.ts";
import { bitsFrom } from "./state.ts";
import { apply, type Tensor, tensor } from "./tensor.ts";

export interface SelfCheck {
  readonly name: string;
  readonly ok: boolean;
  /** Largest difference over the largest magnitude, or why there is none. */
  readonly error: number | string;
  readonly bound: number;
}

/** A Draw that needs no test library: words of the counter-based generator. */
export function seededDraw(seed: number, name: string): Draw {
  const word = bitsFrom(seed, name);
  let i = 0;
  return {
    int: (lo, hi) => lo + (word(i++) % (hi - lo + 1)),
    pick: (choices) => choices[word(i++) % choices.length],
  };
}

/** Values for a drawn call: uniform in the op's domain, integers below their bound. */
function valuesOf(
  op: AnyOp,
  input: Sample<unknown>["inputs"][number],
  word: (i: number) => number,
  offset: number,
): Tensor {
  const [lo, hi] = op.domain ?? [-1, 1];
  const dtype = input.dtype ?? "f32";
  const value = (i: number): number => {
    const w = word(offset + i);
    return dtype === "f32" ? lo + (hi - lo) * (w / 2 ** 32) : w % (input.below ?? 2);
  };
  return tensor(
    toData(
      dtype,
      Float64Array.from({ length: numel(input.shape) }, (_, i) => value(i)),
    ),
    input.shape,
    dtype,
  );
}

/** Random values of a shape, uniform in [-1, 1). */
type Values = (...shape: number[]) => Tensor;

// Sizes at which the fast variants of each family are chosen, none of them a multiple of a tile.
const LARGER: Readonly<Record<string, (v: Values) => Tensor>> = {
  "matmul 33x20x36": (v) => v(33, 20).matmul(v(20, 36)),
  "matmul transposed": (v) => v(20, 33).transpose().matmul(v(36, 20).transpose()),
  "matmul + bias, silu": (v) => v(40, 24).matmul(v(24, 32)).add(v(32)).silu(),
  "conv 3x3": (v) => v(2, 9, 9, 8).conv(v(3, 3, 8, 20), { padding: 1 }),
  "conv 3x3 stride 2": (v) => v(2, 9, 9, 8).conv(v(3, 3, 8, 32), { padding: 1, stride: 2 }),
  "conv over frames": (v) => v(1, 8, 6, 6, 16).conv(v(3, 1, 1, 16, 16), { padding: [1, 0, 0] }),
  "conv depthwise": (v) => v(2, 9, 9, 8).conv(v(3, 3, 1, 8), { padding: 1, groups: 8 }),
  "conv in narrow groups": (v) => v(2, 9, 9, 6).conv(v(3, 3, 2, 9), { padding: 1, groups: 3 }),
  "conv transposed": (v) => v(2, 5, 5, 8).convTranspose(v(4, 4, 20, 8), { padding: 1, stride: 2 }),
  "conv input gradient": (v) => gradientOf((x, w) => x.conv(w, { padding: 1 }), v(2, 9, 9, 8), v(3, 3, 8, 20), 0),
  "conv weight gradient": (v) => gradientOf((x, w) => x.conv(w, { padding: 1 }), v(2, 9, 9, 8), v(3, 3, 8, 20), 1),
  "softmax 3x64": (v) => v(3, 64).softmax(),
  "moments of groups": (v) => v(2, 80, 4, 8).moments(1e-5),
  "moments of rows": (v) => v(130, 1, 1, 64).moments(1e-5),
  "attention 24 tokens": (v) => v(1, 24, 2, 16).attention(v(1, 24, 2, 16), v(1, 24, 2, 16)),
  "embedding gradient": (v) => v(64, 16).gatherRowsGrad(v(64).mul(5).abs().cast("i32"), 6),
  "table gradient, many rows": (v) => v(96, 4).gatherRowsGrad(v(96).mul(3000).abs().cast("i32"), 5000),
  "cumsum of 3 x 1,000": (v) => v(3, 1000).cumsum(1),
  "scan of 400": (v) => v(400, 2).linearScan(v(400, 2), 0),
  "argsort of 5 x 100": (v) => v(5, 100).mul(20).floor().argsort(),
  "sum of 20,000": (v) => v(20, 1000).mul(v(20, 1000)).sum(),
};

function gradientOf(f: (a: Tensor, b: Tensor) => Tensor, a: Tensor, b: Tensor, which: 0 | 1): Tensor {
  return vjp(f(a, b), [a, b], f(a.mul(0.5), b))[which];
}

function checkOp(op: AnyOp, seed: number): Promise<SelfCheck> {
  return compare(op.name, op.rtol, () => {
    const sample = op.draw(seededDraw(seed, op.name));
    const word = bitsFrom(seed, `values of ${op.name}`);
    return apply(
      op,
      sample.inputs.map((input, i) => valuesOf(op, input, word, i * 65536)),
      sample.attrs,
    );
  });
}

function checkLarger(name: string, make: (v: Values) => Tensor, seed: number): Promise<SelfCheck> {
  const word = bitsFrom(seed, name);
  let used = 0;
  const values: Values = (...shape) => {
    const start = used;
    used += numel(shape);
    return tensor(
      Float32Array.from({ length: numel(shape) }, (_, i) => word(start + i) / 2 ** 31 - 1),
      shape,
    );
  };
  return compare(name, 1e-5, () => make(values));
}

/** The value on the open device beside the float64 one of the same graph. */
async function compare(name: string, rtol: number, make: () => Tensor): Promise<SelfCheck> {
  try {
    const out = make();
    const expected = evaluate64([out.node], (n) => hostValues(n.storage)).get(out.node);
    const got = await out.data();
    let worst = 0;
    let largest = 1e-30;
    expected?.data.forEach((e, i) => {
      worst = Math.max(worst, Math.abs(got[i] - e));
      largest = Math.max(largest, Math.abs(e));
    });
    // The last digits of single elements are the test suite's business: here a tenfold bound tells broken from sound.
    const bound = Math.max(10 * rtol, 1e-6);
    return { name, ok: worst <= bound * largest, error: worst / largest, bound };
  } catch (e) {
    return { name, ok: false, error: (e as Error).message.split("\n")[0], bound: 0 };
  }
}

/** Checks every op that computes something on the open device, one after another. */
export async function selfCheck(onResult?: (check: SelfCheck) => void): Promise<SelfCheck[]> {
  const results: SelfCheck[] = [];
  for (const op of allOps().filter((o) => o.lower.kind !== "leaf")) {
    const result = await checkOp(op, 7);
    onResult?.(result);
    results.push(result);
  }
  for (const [name, make] of Object.entries(LARGER)) {
    const result = await checkLarger(name, make, 7);
    onResult?.(result);
    results.push(result);
  }
  return results;
}
