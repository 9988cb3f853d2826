// The contract of this folder: what a kernel is given (Caps, a spec), what it gives back (Lowered), and the few helpers
// that every family writes its WGSL with. Knows no graph, no tensor and no device. Callers: engine/plan/emit/,
// engine/ops (variant lists) and the tests.
//
// Binding convention, the same for every kernel: group 0; storage buffers first, in operand order, all
// `var<storage, read_write>` (one arena buffer bound both `read` and `read_write` in a dispatch is a WebGPU error);
// then, when there are any, the scalars of this dispatch in one uniform struct. The entry point is `main`.

/** A product in hardware: [m, k] x [k, n] of `input`, summed in `result`. */
export interface MatrixShape {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly input: "f16" | "f32";
  readonly result: "f16" | "f32";
}

/** What a kernel may rely on. Filled from the adapter by engine/runtime, or by hand in tests. */
export interface Caps {
  /** Software rasterisers punish shared memory and reward shuffles; discrete GPUs do the opposite. */
  readonly adapter: "cpu" | "gpu";
  /** The one subgroup size of this adapter; 0 when it has no subgroups or the size may vary. */
  readonly subgroupSize: number;
  /** WGSL has the builtin `subgroup_id` here. */
  readonly subgroupIds?: boolean;
  readonly f16: boolean;
  /** Storage buffers per shader stage. */
  readonly maxBindings: number;
  /** Invocations per workgroup. */
  readonly maxInvocations: number;
  /** Bytes of `var<workgroup>` memory. */
  readonly maxWorkgroupMemory: number;
  readonly maxWorkgroupsPerDim: number;
  /** Shapes that the adapter's matrix units multiply; none when absent. */
  readonly matrices?: readonly MatrixShape[];
  /** Bytes of one storage binding, and of one buffer. */
  readonly maxBinding: number;
  readonly maxBuffer: number;
  /** Which variant serves a family's class of shapes (`tuningKey`) where measuring on this adapter said so. */
  readonly tuned?: Readonly<Record<string, string>>;
}

/** WebGPU's guaranteed minimum: every family must have a variant that supports this. */
export const MINIMUM_CAPS: Caps = {
  adapter: "gpu",
  subgroupSize: 0,
  f16: false,
  maxBindings: 8,
  maxInvocations: 256,
  maxWorkgroupMemory: 16384,
  maxWorkgroupsPerDim: 65535,
  maxBinding: 2 ** 27,
  maxBuffer: 2 ** 28,
};

/** What a discrete GPU of recent years offers through Dawn: for plans made where there is none. */
export const DISCRETE_CAPS: Caps = {
  adapter: "gpu",
  subgroupSize: 32,
  f16: true,
  maxBindings: 10,
  maxInvocations: 1024,
  maxWorkgroupMemory: 32768,
  maxWorkgroupsPerDim: 65535,
  maxBinding: 2 ** 31 - 4,
  maxBuffer: 2 ** 31 - 4,
};

/** Element type of a storage buffer. Everything is 4 bytes wide; `vec4` loads are a matter of declaration only. */
export type Scalar = "f32" | "i32" | "u32";

/** One shader and one dispatch of it. */
export interface KernelSource {
  /** Short, stable, for profilers and error messages: family, variant and what tells it from its siblings. */
  readonly label: string;
  readonly wgsl: string;
  readonly workgroups: readonly [number, number, number];
  /** 32-bit words of the uniform struct at the binding after the last storage buffer; none when empty. */
  readonly uniforms: readonly number[];
  /** Arithmetic operations of the dispatch (an exp counts as one). Where none are stated, it is taken for a large one. */
  readonly flops?: number;
  /** Bytes it moves, where that is not what it binds: a lookup reads few rows of its table. */
  readonly bytes?: number;
}

/** A dispatch and what its storage bindings are: indices into [...inputs, ...epilogue operands, ...outputs, ...scratch]. */
export interface Pass {
  readonly source: KernelSource;
  readonly operands: readonly number[];
}

/** What a variant emits for one spec: usually one pass; split reductions have two and a scratch buffer between them. */
export interface Lowered {
  readonly passes: readonly Pass[];
  /** Elements (4 bytes each) of each scratch buffer. */
  readonly scratch: readonly number[];
}

/** One implementation of a family. The slowest and plainest comes last in the list and supports everything. */
export interface Variant<S> {
  readonly name: string;
  /**
   * "bias": of epilogues it should be given nothing but a bias. For kernels that take a second to compile on adapters where
   * a pass over the result takes a hundredth of the kernel's time.
   */
  readonly epilogues?: "bias";
  supports(spec: S, caps: Caps): boolean;
  emit(spec: S, caps: Caps): Lowered;
}

/** One operand of a kernel: its type and how many elements it has. */
export interface Operand {
  readonly dtype: Scalar;
  readonly size: number;
  /** For integer inputs: values lie in [0, below). */
  readonly below?: number;
  /** For float inputs that are checked: values lie in this interval, [-2, 2] when absent. */
  readonly domain?: readonly [lo: number, hi: number];
}

/** Source of small random choices; tests back it with fast-check, so that a failing spec shrinks. */
export interface Draw {
  int(lo: number, hi: number): number;
  pick<T>(choices: readonly T[]): T;
}

/** Everything about one kernel family, so that one generic test can check all variants of all families. */
export interface Family<S> {
  readonly name: string;
  /** Fastest first; `choose` takes the first that supports the spec. */
  readonly variants: readonly Variant<S>[];
  /** More of them, chosen only where tuning names them: other tiles, and variants outside of where they usually win. */
  readonly candidates?: readonly Variant<S>[];
  inputs(spec: S): readonly Operand[];
  outputs(spec: S): readonly Operand[];
  /** The definition: plain loops in float64. Slow and obvious on purpose. */
  reference(spec: S, inputs: readonly Float64Array[]): Float64Array[];
  /** A random legal spec, biased to the sizes where tiles end. */
  draw(d: Draw): S;
  /** Largest error allowed, relative to the largest magnitude of the output. */
  readonly rtol: number;
  /** Why, in a line; needed unless it is 0. */
  readonly why?: string;
  /** Results are sums: `rtol` is relative to what the definition makes of the inputs' magnitudes, which do not cancel. */
  readonly sums?: true;
}

type Choice<S> = Pick<Family<S>, "name" | "variants" | "candidates">;

/**
 * The variant that tuning names for such shapes, if it supports the spec; else the first of the list that supports it on
 * this adapter. Throws when none does: the family is incomplete.
 */
export function choose<S>(family: Choice<S>, spec: S, caps: Caps): Variant<S> {
  const tuned = caps.tuned?.[tuningKey(family.name, spec)];
  const named = tuned && candidatesOf(family, spec, caps).find((v) => v.name === tuned);
  const found = named || family.variants.find((v) => v.supports(spec, caps));
  if (!found) throw new Error(`${family.name}: no variant supports ${JSON.stringify(spec)}`);
  return found;
}

/** All variants that support the spec on this adapter, each name once, the default first. */
export function candidatesOf<S>(family: Choice<S>, spec: S, caps: Caps): Variant<S>[] {
  const able = [...family.variants, ...(family.candidates ?? [])].filter((v) => v.supports(spec, caps));
  return able.filter((v, i) => able.findIndex((w) => w.name === v.name) === i);
}

/**
 * A family's class of shapes: specs whose whole numbers lie between the same powers of two share a tuned choice, as in
 * `matmul m32 n64 k16 batch1,1 ...`. Other numbers (a scale, an epsilon) do not matter to speed.
 */
export function tuningKey(family: string, spec: unknown): string {
  const size = (n: number): string => (Number.isInteger(n) ? String(n > 0 ? 2 ** Math.floor(Math.log2(n)) : n) : "");
  const words = (v: unknown): string => {
    if (typeof v === "number") return size(v);
    if (Array.isArray(v)) return v.map(words).join();
    if (typeof v !== "object" || v === null) return typeof v === "string" || typeof v === "boolean" ? String(v) : "";
    return Object.entries(v)
      .filter(([name]) => name !== "epilogue")
      .map(([name, x]) => `${name}${typeof x === "object" ? `(${words(x)})` : words(x)}`)
      .join(" ");
  };
  return `${family} ${words(spec)}`;
}

/**
 * An expression that a matmul-like kernel applies to each result before it stores it: bias, residual, activation.
 * The kernel pastes `bindings` after its inputs and `wgsl` before `main`; `wgsl` defines
 * `fn epilogue(acc: T, row: u32, col: u32) -> T` with T = f32 (width 1) or vec4<f32> (width 4, col divisible by 4),
 * where row is the flat index over all leading output dimensions and col the index in the last one. The kernel's uniform
 * struct has a field `n`, the number of columns, so that `row * u.n + col` addresses an operand laid out like the result.
 */
export interface Epilogue {
  /** How many extra operands it reads. */
  readonly operands: number;
  /** Tells apart epilogues that make different WGSL; part of the kernel's label. */
  readonly label: string;
  /** It is acc + a vector over the columns, its one operand: a kernel may have text of its own for that. */
  readonly bias?: boolean;
  code(width: 1 | 4): {
    readonly bindings: readonly { readonly name: string; readonly type: string }[];
    readonly wgsl: string;
  };
}

/** Declares storage bindings 0.. in order, e.g. `storage([["x", "vec4<f32>"], ["y", "f32"]])`. */
export function storage(bindings: readonly (readonly [name: string, element: string])[]): string {
  return bindings
    .map(([name, element], i) => `@group(0) @binding(${i}) var<storage, read_write> ${name}: array<${element}>;`)
    .join("\n");
}

/** A scalar of a dispatch: its name in the uniform struct, type and value. */
export type Field = readonly [name: string, type: Scalar, value: number];

/** Uniform struct `u` with 32-bit scalar fields; `values` in the same order become KernelSource.uniforms. */
export function uniforms(binding: number, fields: readonly Field[]): { wgsl: string; words: number[] } {
  if (fields.length === 0) return { wgsl: "", words: [] };
  const members = fields.map(([name, type]) => `  ${name}: ${type},`).join("\n");
  return {
    wgsl: `struct Uniforms {\n${members}\n}\n@group(0) @binding(${binding}) var<uniform> u: Uniforms;`,
    words: fields.map(([, type, value]) => (type === "f32" ? f32bits(value) : value >>> 0)),
  };
}

const scratch = new DataView(new ArrayBuffer(4));

/** Bit pattern of a number rounded to float32. */
export function f32bits(x: number): number {
  scratch.setFloat32(0, x);
  return scratch.getUint32(0);
}

/** A float literal WGSL accepts and that rounds to the same float32. */
export function f32(x: number): string {
  const y = Math.fround(x);
  if (!Number.isFinite(y)) throw new Error(`WGSL has no literal for ${x}: use a finite sentinel`);
  return Number.isInteger(y) && Math.abs(y) < 1e9 ? `${y}.0f` : `${y}f`;
}

/**
 * Folds a long 1-D grid over x and y, because a dimension holds at most 65,535 workgroups: as few rows as possible, of equal
 * width, so that hardly a workgroup lies past the end. In the kernel the flat index is `wg.y * grid.x + wg.x`, with `grid`
 * the builtin num_workgroups, and it must be compared with the total: the last row overshoots.
 */
export function foldGrid(total: number, caps: Pick<Caps, "maxWorkgroupsPerDim">): [number, number, number] {
  const rows = Math.ceil(total / caps.maxWorkgroupsPerDim);
  return [Math.max(1, Math.ceil(total / Math.max(1, rows))), rows, 1];
}

/** Tagged template for WGSL: joins arrays with newlines and removes the common indent, so that dumps are readable. */
export function wgsl(parts: TemplateStringsArray, ...values: (string | number | readonly string[])[]): string {
  let text = parts[0];
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    text += (Array.isArray(v) ? v.join("\n") : String(v)) + parts[i + 1];
  }
  const lines = text.split("\n").filter((l, i, all) => l.trim() !== "" || (i > 0 && i < all.length - 1));
  const indent = Math.min(...lines.filter((l) => l.trim() !== "").map((l) => l.length - l.trimStart().length), 99);
  return lines.map((l) => (l.length - l.trimStart().length >= indent ? l.slice(indent) : l)).join("\n") + "\n";
}
