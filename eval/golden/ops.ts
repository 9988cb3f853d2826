// Golden kind "ops": torch operations with outputs and gradients, one safetensors file per group and ops.json, which lists
// group -> case -> { op, args, inputs, outputs, grads }. Each case is one compiled program: its outputs, and the gradients
// of the sum over float outputs of mean(out * proj). The ops themselves are in ops/<group>.ts.

import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { Args } from "./args.ts";
import { need, peekJson, readJson, readTensors, type Stored, upload } from "./files.ts";
import { boundOf, broken, type Check, compare, type Kind } from "./kind.ts";
import { OPS } from "./ops/index.ts";

interface Case {
  readonly op: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly grads: readonly string[];
}
type Groups = Readonly<Record<string, Readonly<Record<string, Case>>>>;
type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;

export const ops: Kind = {
  name: "ops",
  recognises: async (folder) => isGroups(await peekJson(folder, "ops.json")),
  run,
};

function isGroups(json: unknown): boolean {
  const values = (x: unknown): unknown[] => (typeof x === "object" && x !== null ? Object.values(x) : []);
  const cases = values(json).flatMap(values) as Partial<Case>[];
  return cases.length > 0 && cases.every((c) => typeof c?.op === "string" && Array.isArray(c.outputs));
}

async function* run(folder: string): AsyncGenerator<Check> {
  for (const group of Object.keys(await readJson<Groups>(folder, "ops.json"))) yield* runGroup(folder, group);
}

/** Checks of one group's cases. */
export async function* runGroup(folder: string, group: string): AsyncGenerator<Check> {
  const cases = (await readJson<Groups>(folder, "ops.json"))[group];
  const tolerances = await readJson<Tolerances>(folder, "tolerance.json");
  const stored = await readTensors(folder, `${group}.safetensors`);
  for (const [name, one] of Object.entries(cases)) yield* runCase(`${group}/${name}`, name, one, stored, tolerances);
}

/** Checks of one case; whatever goes wrong is a failing check that says what. */
async function* runCase(
  label: string,
  name: string,
  one: Case,
  stored: ReadonlyMap<string, Stored>,
  tolerances: Tolerances,
): AsyncGenerator<Check> {
  try {
    for (const [key, value] of Object.entries(evaluate(name, one, stored))) {
      const want = need(stored, `${name}.${key}`);
      if (value.shape.join() !== want.shape.join()) {
        yield broken(`${label}.${key}`, `expected shape [${want.shape}], got [${value.shape}]`);
      } else {
        const bound = want.whole ? 0 : boundOf(tolerances[`${label}.${key}`]?.rel_to_max ?? 0, want.data.length);
        yield compare(`${label}.${key}`, await value.data(), want.data, bound);
      }
    }
  } catch (error) {
    yield broken(label, (error as Error).message);
  }
}

/** Outputs by name and gradients as "grad.<input>". */
function evaluate(name: string, one: Case, stored: ReadonlyMap<string, Stored>): Record<string, Tensor> {
  const op = OPS.get(one.op);
  if (!op) throw new Error(`no op "${one.op}" is known here`);
  const tensors = (part: string, names: readonly string[]): Record<string, Tensor> =>
    Object.fromEntries(names.map((n) => [n, upload(need(stored, `${name}.${part}${n}`))]));
  const inputs = tensors("in.", one.inputs);
  const proj = (out: string): Stored | undefined => stored.get(`${name}.${out.replace("out", "proj")}`);
  const step = (): Record<string, Tensor> => {
    const args = new Args(one.args);
    const results = [op(args, inputs)].flat();
    if (args.unread().length > 0) throw new Error(`op "${one.op}" knows no argument ${args.unread().join(", ")}`);
    if (results.length < one.outputs.length)
      throw new Error(`op "${one.op}": expected ${one.outputs.length} results, got ${results.length}`);
    const outputs = Object.fromEntries(one.outputs.map((out, i) => [out, results[i]]));
    const terms = Object.entries(outputs).flatMap(([out, y]) => {
      const p = y.dtype === "f32" ? proj(out) : undefined;
      return p ? [y.mul(upload(p)).mean()] : [];
    });
    if (one.grads.length === 0 || terms.length === 0) return outputs;
    const loss = terms.reduce((a, b) => a.add(b));
    const grads = grad(
      loss,
      one.grads.map((n) => inputs[n]),
    );
    return { ...outputs, ...Object.fromEntries(one.grads.map((n, i) => [`grad.${n}`, grads[i]])) };
  };
  return compile(step, { name })({});
}
