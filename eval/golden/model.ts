// Golden folders of networks: config.json, weights.safetensors, io.safetensors (inputs, outputs, fixed projections, some
// gradients), tolerance.json, grad_norms.json. What all of them share is here: a kind says how to build the network and
// what it computes, and every stored output and gradient, and the norm of every weight's gradient, becomes a check.

import { join } from "node:path";
import { grad } from "../../engine/autograd.ts";
import { compile } from "../../engine/compile.ts";
import type { Data } from "../../engine/dtype.ts";
import { Parameter } from "../../engine/state.ts";
import type { Tensor } from "../../engine/tensor.ts";
import { byRules, type Layout, loadForeign } from "../../models/checkpoints/layout.ts";
import { asParameter, channelsLast, permuted } from "./axes.ts";
import { exists, need, peekJson, readJson, readTensors, type Stored, upload } from "./files.ts";
import { boundOf, broken, type Check, compare, SLACK, TWO_ULPS } from "./kind.ts";

export type Tensors = Readonly<Record<string, Tensor>>;
type Tolerances = Readonly<Record<string, { readonly rel_to_max: number }>>;
export type Norms = Readonly<Record<string, readonly [l2: number, sum: number]>>;
interface NormsFile {
  readonly grad_l2_and_sum: Norms;
}

const WEIGHTS = "weights.safetensors";

/** What a kind makes of a folder. */
export interface Network {
  /**
   * Parameters by the names that the folder gives its weights. A list where one tensor of the folder is several
   * parameters, one behind the other along its first axis (fused query, key and value).
   */
  readonly weights: ReadonlyMap<string, Parameter | readonly Parameter[]>;
  /** Inputs by their names less "in.", as `ModelFolder.input` gives them; gradients are taken of those stored ones ask for. */
  readonly inputs: Tensors;
  /**
   * Outputs by their names less "out.", from inputs that may be traced. The loss is the sum over those that have a
   * projection of mean(output * projection).
   */
  outputs(inputs: Tensors): Tensors;
  /** How a stored output, input or projection lies here; default: rank 4 and more have their channels moved to the end. */
  axes?(stored: Stored, name: string): Stored;
  /** Names of weights that the folder holds with rows and columns exchanged; so are their gradients. */
  readonly transposed?: ReadonlySet<string>;
}

export interface CheckOptions {
  /** Stored names ("out.x", "grad.w.y", "loss") that some other part of the kind checks. */
  readonly except?: (name: string) => boolean;
  /** Bounds of stored names that tolerance.json leaves out. */
  readonly bounds?: Readonly<Record<string, number>>;
}

/** A folder of a network, read. */
export class ModelFolder {
  readonly path: string;
  readonly io: ReadonlyMap<string, Stored>;
  readonly #tolerances: Tolerances;
  readonly #norms: Norms;

  /** Use `openModelFolder`. */
  constructor(path: string, io: ReadonlyMap<string, Stored>, tolerances: Tolerances, norms: Norms) {
    this.path = path;
    this.io = io;
    this.#tolerances = tolerances;
    this.#norms = norms;
  }

  /** A JSON file of the folder. */
  json<T>(file: string): Promise<T> {
    return readJson<T>(this.path, file);
  }

  /** Fills parameters from a weights file, by the loader that users' checkpoints go through. Default: our own names. */
  async load(into: ReadonlyMap<string, Parameter>, layout: Layout = byRules([]), file = WEIGHTS): Promise<void> {
    await loadForeign(join(this.path, file), into, layout);
  }

  /** "in.NAME" (or any other full name with a dot) on the device; pictures and videos channels last. */
  input(name: string, axes = defaultAxes): Tensor {
    const full = name.includes(".") ? name : `in.${name}`;
    return upload(axes(need(this.io, full)));
  }

  /** Holds `got` against a stored array, which `axes` brings into the order used here. */
  check(name: string, got: ArrayLike<number>, axes: (x: Stored) => Stored = defaultAxes, bound?: number): Check {
    const stored = this.io.get(name);
    if (!stored) return broken(name, "the folder has no such tensor");
    if (stored.whole || bound !== undefined) return compare(name, got, axes(stored).data, bound ?? 0);
    const [wide, stated] = [this.bound(name), SLACK * (this.#tolerances[name]?.rel_to_max ?? 0)];
    const check = compare(name, got, axes(stored).data, wide);
    return wide > stated ? { ...check, stated } : check;
  }

  /**
   * What `boundOf` says of the stored cost. The cost of a tensor is the largest of many errors; that of a single number (a
   * loss, the gradient of a scalar) is one draw, near zero by chance where terms happen to cancel. So a single number is
   * held to no less than the median cost of the folder's tensors.
   * Throws where the folder does not say what float32 cost: a bound would be a guess.
   */
  bound(name: string): number {
    const tolerance = this.#tolerances[name];
    if (!tolerance) throw new Error(`tolerance.json has no ${name}`);
    const size = this.io.get(name)?.data.length;
    const typical = size === 1 ? median(Object.values(this.#tolerances).map((t) => t.rel_to_max)) : 0;
    return boundOf(Math.max(tolerance.rel_to_max, typical), size);
  }

  /**
   * Every stored output and gradient, and the norm and sum of every weight's gradient, from one compiled step. A stored
   * name that the network does not compute is a failing check.
   */
  async *checks(net: Network, { except = () => false, bounds = {} }: CheckOptions = {}): AsyncGenerator<Check> {
    const asked = [...net.weights].filter(([name]) => this.io.has(`grad.w.${name}`) || name in this.#norms);
    const weights = new Map(asked.filter(([name]) => !except(`grad.w.${name}`)));
    const got = await this.#run(net, weights);
    for (const name of this.io.keys()) {
      if (!/^(out\.|loss$|grad\.)/.test(name) || except(name)) continue;
      const path = name.replace(/^grad\.w\./, "");
      const weight = weights.get(path);
      const axes = (x: Stored): Stored => {
        if (net.transposed?.has(path)) return permuted(x, [1, 0]);
        return weight instanceof Parameter ? asParameter(x, weight) : weight ? x : (net.axes ?? defaultAxes)(x, name);
      };
      const values = got.get(name);
      yield values ? this.check(name, values, axes, bounds[name]) : broken(name, "nothing here computes it");
    }
    for (const name of Object.keys(this.#norms))
      if (!except(`grad.w.${name}`)) yield this.norm(name, got.get(`grad.w.${name}`));
  }

  /** Outputs, loss and gradients by their stored names. */
  async #run(net: Network, weights: Network["weights"]): Promise<Map<string, Data>> {
    const axes = net.axes ?? defaultAxes;
    const wanted = [...weights].map(([name, ps]) => [`grad.w.${name}`, [ps].flat()] as const);
    const parameters = wanted.flatMap(([, ps]) => ps);
    const step = compile((inputs: Record<string, Tensor>): Record<string, Tensor> => {
      const out = Object.entries(net.outputs(inputs));
      const results = out.map(([name, y]): [string, Tensor] => [`out.${name}`, y]);
      const projected = out.filter(([name]) => this.io.has(`proj.${name}`));
      if (projected.length === 0) return Object.fromEntries(results);
      const parts = projected.map(([name, y]) => {
        const projection = axes(need(this.io, `proj.${name}`), `proj.${name}`);
        return y.mul(upload({ ...projection, shape: y.shape })).mean();
      });
      const loss = parts.reduce((a, b) => a.add(b));
      const ins = Object.keys(inputs).filter((name) => this.io.has(`grad.in.${name}`));
      const grads = grad(loss, [...ins.map((name) => inputs[name]), ...parameters]);
      const names = [...ins.map((name) => `grad.in.${name}`), ...parameters.map((_, i) => `#${i}`)];
      return Object.fromEntries([...results, ["loss", loss], ...grads.map((g, i) => [names[i], g] as const)]);
    });
    const got = new Map<string, Data>();
    for (const [name, y] of Object.entries(step(net.inputs))) got.set(name, await y.data());
    let at = 0;
    for (const [name, ps] of wanted) got.set(name, joined(ps.map(() => got.get(`#${at++}`))));
    return got;
  }

  /**
   * A gradient of n elements by its L2 norm and its sum. Rounding gives each element an error of its own, by the rms a
   * fraction `bound` of the gradient: the norm is then off by as much, the sum by sqrt(n) times that. The fraction is the
   * largest that float32 cost any gradient stored whole in this folder, with the same slack. Gradients that cancel (of a
   * bias before a norm, of keys' biases) are rounding of terms as large as those of the weight beside them, so the error is
   * relative to the largest norm in the same layer. A folder of several losses names the `norms` of one, and what stands
   * `before` "grad." in the names of its stored gradients.
   */
  norm(name: string, got: Data | undefined, norms = this.#norms, before = ""): Check {
    const label = `${before}grad_norm.${name}`;
    const stored = [...this.io.keys()].filter((key) => key.startsWith(`${before}grad.`));
    const bound = Math.max(TWO_ULPS, ...stored.map((key) => SLACK * (this.#tolerances[key]?.rel_to_max ?? 0)));
    if (!got) return broken(label, "nothing here computes it", bound);
    const layer = name.slice(0, name.lastIndexOf(".") + 1);
    const beside = Object.keys(norms).filter((key) => key.slice(0, key.lastIndexOf(".") + 1) === layer);
    const scale = Math.max(...beside.map((key) => norms[key][0]));
    let [squares, sum] = [0, 0];
    for (const g of got) [squares, sum] = [squares + g * g, sum + g];
    const off = [Math.sqrt(squares) - norms[name][0], (sum - norms[name][1]) / Math.sqrt(got.length)];
    const worst = Math.max(...off.map((x) => (Number.isNaN(x) ? Number.POSITIVE_INFINITY : Math.abs(x))));
    const error = scale > 0 ? worst / scale : worst;
    return { name: label, error, bound, ok: error <= bound };
  }
}

function joined(parts: readonly (Data | undefined)[]): Data {
  const values = parts.filter((part) => part !== undefined);
  return values.length === 1 ? values[0] : Float32Array.from(values.flatMap((part) => [...part]));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** Pictures and videos, and what has more axes still, have their channels second in these folders and last here. */
function defaultAxes(stored: Stored): Stored {
  return stored.shape.length >= 4 ? channelsLast(stored) : stored;
}

/** Reads the arrays of a folder. Throws one line when a file of them is missing; grad_norms.json may be. */
export async function openModelFolder(path: string): Promise<ModelFolder> {
  const tolerances = await readJson<Tolerances>(path, "tolerance.json");
  const norms = (await peekJson(path, "grad_norms.json")) as NormsFile | null;
  return new ModelFolder(path, await readTensors(path, "io.safetensors"), tolerances, norms?.grad_l2_and_sum ?? {});
}

/** config.json where the folder holds a network (weights and arrays beside it), else null. For `recognises`. */
export async function peekConfig(path: string): Promise<Readonly<Record<string, unknown>> | null> {
  const files = await Promise.all(["io.safetensors", WEIGHTS].map((file) => exists(path, file)));
  const config = files.every((found) => found) ? await peekJson(path, "config.json") : null;
  return typeof config === "object" ? (config as Readonly<Record<string, unknown>> | null) : null;
}
