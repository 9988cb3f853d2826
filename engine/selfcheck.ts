// A quick proof that this adapter computes what the ops mean: one small random call of every op with a kernel of its own, and
// of a few fused ones, on the open device against the float64 reference. `gifgrad doctor` prints it; it is not the test
// suite, which draws many shapes and checks gradients too.

import type { Draw } from "../kernels/wgsl.ts";
import { toData } from "./dtype.ts";
import { type AnyOp, allOps, type Sample } from "./ops/op.ts";
import { evaluate64 } from "./reference.ts";
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

async function checkOp(op: AnyOp, seed: number): Promise<SelfCheck> {
  try {
    const sample = op.draw(seededDraw(seed, op.name));
    const word = bitsFrom(seed, `values of ${op.name}`);
    const ins = sample.inputs.map((input, i) => valuesOf(op, input, word, i * 65536));
    const out = apply(op, ins, sample.attrs);
    const expected = evaluate64([out.node], (n) => ({
      shape: n.shape,
      data: Float64Array.from(n.storage?.host() ?? []),
    })).get(out.node);
    const got = await out.data();
    let worst = 0;
    let largest = 1e-30;
    expected?.data.forEach((e, i) => {
      worst = Math.max(worst, Math.abs(got[i] - e));
      largest = Math.max(largest, Math.abs(e));
    });
    // The last digits of single elements are the test suite's business: here a tenfold bound tells broken from sound.
    const bound = Math.max(10 * op.rtol, 1e-6);
    return { name: op.name, ok: worst <= bound * largest, error: worst / largest, bound };
  } catch (e) {
    return { name: op.name, ok: false, error: (e as Error).message.split("\n")[0], bound: 0 };
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
  return results;
}
