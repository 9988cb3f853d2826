// Writes an expression (plan/expr.ts) as WGSL statements: names for bindings and variables, vec4 or scalar loads, common
// subexpressions once. Knows nothing of kernels; emit/ puts the statements into them.

import { f32 } from "../../kernels/wgsl.ts";
import type { DType } from "../dtype.ts";
import { bufferType, storageType } from "../dtype.ts";
import type { Node } from "../graph.ts";
import type { WgslType } from "../ops/op.ts";
import type { Condition, Index } from "../ops/view.ts";
import { type Expr, loadsOf } from "./expr.ts";

/** Where a value lives, as a key: two nodes with the same key share a buffer and must share a binding. */
export type PlaceOf = (n: Node) => string;

export interface Binding {
  readonly name: string;
  readonly place: string;
  readonly node: Node;
  readonly dtype: DType;
  vector: boolean;
}

/** Bindings of one kernel in order; each place once. */
export class Bindings {
  readonly list: Binding[] = [];
  readonly halves: boolean;
  readonly #prefix: string;
  readonly #place: PlaceOf;

  /** `halves`: f16 values lie in 16 bits. */
  constructor(prefix: string, place: PlaceOf, halves: boolean) {
    this.#prefix = prefix;
    this.#place = place;
    this.halves = halves;
  }

  of(node: Node): Binding {
    const place = this.#place(node);
    const known = this.list.find((b) => b.place === place);
    if (known) return known;
    const made: Binding = { name: `${this.#prefix}${this.list.length}`, place, node, dtype: node.dtype, vector: false };
    this.list.push(made);
    return made;
  }

  declare(first: number): string {
    return this.list
      .map((b, i) => `@group(0) @binding(${first + i}) var<storage, read_write> ${b.name}: array<${this.element(b)}>;`)
      .join("\n");
  }

  element(b: Binding): string {
    const type = bufferType(b.dtype, this.halves);
    return b.vector ? `vec4<${type}>` : type;
  }
}

/**
 * Sizes, strides and offsets of one dispatch. As uniforms they leave the text the same for all shapes, so that one pipeline
 * serves every layer of a network; as literals they cost nothing to divide by.
 */
export class Constants {
  readonly fields: [name: string, type: "u32", value: number][] = [];
  readonly #prefix: string | null;

  /** `prefix` of the uniform fields' names; null: literals. */
  constructor(prefix: string | null) {
    this.#prefix = prefix;
  }

  /** WGSL (u32) of a number. */
  of(n: number): string {
    if (this.#prefix === null) return `${n >>> 0}u`;
    const name = `${this.#prefix}${this.fields.length}`;
    this.fields.push([name, "u32", n >>> 0]);
    return `u.${name}`;
  }

  /** x / n and x % n. Powers of two, which most sizes are, get a shift and a mask: a division by a uniform is dear. */
  quotient(x: string, n: number): string {
    return isPowerOfTwo(n) ? `((${x}) >> ${this.of(Math.log2(n))})` : `((${x}) / ${this.of(n)})`;
  }
  remainder(x: string, n: number): string {
    return isPowerOfTwo(n) ? `((${x}) & ${this.of(n - 1)})` : `((${x}) % ${this.of(n)})`;
  }
}

function isPowerOfTwo(n: number): boolean {
  return n > 0 && (n & (n - 1)) === 0;
}

export interface WriterOptions {
  readonly bindings: Bindings;
  readonly constants: Constants;
  /** WGSL (u32) of each variable of the space. */
  readonly variables: readonly string[];
  /** The variable along which a vector of four runs; -1: everything is scalar. */
  readonly vectorAlong: number;
  /** WGSL of the core's value, for epilogues. */
  readonly core?: string;
  /** An index that is known under another name: (position, its WGSL). */
  readonly known?: { readonly index: Index; readonly wgsl: string; readonly overFour: string };
}

/** Can four neighbouring values along variable `along` be computed as one vec4? Loads that do not line up are gathered. */
export function vectorizes(values: readonly Expr[], along: number, size: number): boolean {
  if (along < 0 || size % 4 !== 0) return false;
  const free = (i: Index): boolean => i.quotients.every((q) => !q.of.uses(along));
  const uniform = (c: Condition): boolean =>
    !c.index.uses(along) ||
    (c.step === 1 &&
      free(c.index) &&
      c.index.coef[along] === 1 &&
      aligned(c.index, along) &&
      c.lo % 4 === 0 &&
      c.hi % 4 === 0);
  const seen = new Set<Expr>();
  const ok = (e: Expr): boolean => {
    if (seen.has(e)) return true;
    seen.add(e);
    if (e.kind === "load") return free(e.index);
    if (e.kind === "op") return e.args.every(ok);
    return e.kind !== "pick" || e.pieces.every((p) => p.when.every(uniform) && ok(p.value));
  };
  return values.every(ok);
}

/** Everything but variable `along` moves in steps of four. */
function aligned(i: Index, along: number): boolean {
  return (
    i.off % 4 === 0 &&
    i.coef.every((c, j) => j === along || c % 4 === 0) &&
    i.quotients.every((q) => q.mul % 4 === 0 && !q.of.uses(along))
  );
}

type Access = "vector" | "splat" | "gather" | "scalar";

export class Writer {
  readonly lines: string[] = [];
  readonly #o: WriterOptions;
  #names = new Map<Expr, string>();
  #count = 0;

  constructor(options: WriterOptions) {
    this.#o = options;
  }

  /** Decides how each binding is declared; must see every expression before any is written. */
  static prepare(values: readonly Expr[], o: WriterOptions): void {
    for (const load of loadsOf(values)) {
      const binding = o.bindings.of(load.node);
      binding.vector ||= accessOf(load.index, o.vectorAlong) === "vector";
    }
  }

  /** Statements that compute `e`; returns its name. */
  write(e: Expr): string {
    const known = this.#names.get(e);
    if (known) return known;
    const value = this.#express(e);
    const simple = e.kind === "const" || e.kind === "core";
    const name = simple ? value : this.#declare(value);
    this.#names.set(e, name);
    return name;
  }

  type(dtype: DType): WgslType {
    const scalar = dtype === "bool" ? "bool" : storageType(dtype);
    return this.#o.vectorAlong >= 0 ? `vec4<${scalar}>` : scalar;
  }

  /** Value as it is stored: bools become 0 or 1; an f16 has been rounded, so that its conversion is exact. */
  stored(name: string, dtype: DType): string {
    const type = dtype === "bool" ? "u32" : bufferType(dtype, this.#o.bindings.halves);
    if (dtype !== "bool" && type !== "f16") return name;
    return this.#o.vectorAlong >= 0 ? `vec4<${type}>(${name})` : `${type}(${name})`;
  }

  #declare(value: string): string {
    const name = `v${this.#count++}`;
    this.lines.push(`let ${name} = ${value};`);
    return name;
  }

  #express(e: Expr): string {
    switch (e.kind) {
      case "const":
        return `${this.type(e.dtype)}(${literal(e.value, e.dtype)})`;
      case "core":
        return this.#o.core ?? "acc";
      case "load":
        return this.#load(e.node, e.index);
      case "op": {
        const lower = e.node.op.lower;
        if (lower.kind !== "elementwise") throw new Error(`${e.node.op.name} is not elementwise`);
        // WGSL computes an expression of nothing but literals when it compiles, and refuses log(0); a variable it does not.
        const args = e.args.map((a) => this.write(a));
        return lower.wgsl(
          e.args.every((a) => a.kind === "const") ? args.map((a) => this.#declare(a)) : args,
          this.type(e.node.dtype),
          e.node.attrs,
          (expression) => this.#declare(expression),
        );
      }
      case "pick":
        return this.#pick(e);
    }
  }

  #load(node: Node, index: Index): string {
    const b = this.#o.bindings.of(node);
    const access = accessOf(index, this.#o.vectorAlong);
    const bool = (x: string, zero: string): string => (b.dtype === "bool" ? `(${x} != ${zero})` : x);
    const half = bufferType(b.dtype, this.#o.bindings.halves) === "f16";
    const wide = (x: string, type: string): string => (half ? `${type}(${x})` : x);
    if (access === "vector") return bool(wide(`${b.name}[${this.#overFour(index)}]`, "vec4<f32>"), "vec4<u32>()");
    const one = (at: string): string =>
      wide(b.vector ? `${b.name}[(${at}) / 4u][(${at}) % 4u]` : `${b.name}[${at}]`, "f32");
    const at = this.#position(index);
    if (access === "scalar") return bool(one(at), "0u");
    const vec = `vec4<${storageType(b.dtype)}>`;
    if (access === "splat") return bool(`${vec}(${one(at)})`, "vec4<u32>()");
    const step = index.coef[this.#o.vectorAlong];
    const base = this.#declare(at);
    const stride = this.#o.constants.of(step);
    const lane = (j: number): string => one(j === 0 ? base : `${base} + ${j}u * ${stride}`);
    return bool(`${vec}(${[0, 1, 2, 3].map(lane).join(", ")})`, "vec4<u32>()");
  }

  /** Only the piece that applies is read, so each is written inside its own branch. */
  #pick(e: Extract<Expr, { kind: "pick" }>): string {
    const name = `v${this.#count++}`;
    const type = this.type(e.dtype);
    this.lines.push(`var ${name} = ${type}();`);
    const conditions = e.pieces.map((piece) => piece.when.map((c) => this.#condition(c)).join(" && ") || "true");
    e.pieces.forEach((piece, i) => {
      this.lines.push(`${i > 0 ? "else " : ""}if (${conditions[i]}) {`);
      const outer = this.#names;
      this.#names = new Map(outer);
      this.lines.push(`${name} = ${this.write(piece.value)};`);
      this.#names = outer;
      this.lines.push("}");
    });
    return name;
  }

  #condition({ index, lo, hi, step }: Condition): string {
    const signed = (n: number): string => `i32(${this.#o.constants.of(n)})`;
    const at = this.#declare(`i32(${this.#position(index)})`);
    const inside = `${at} >= ${signed(lo)} && ${at} < ${signed(hi)}`;
    return step === 1 ? inside : `${inside} && (${at} - ${signed(lo)}) % ${signed(step)} == 0`;
  }

  #position(index: Index): string {
    const known = this.#o.known;
    if (known && known.index.key() === index.key()) return known.wgsl;
    return affine(index, this.#o.variables, this.#o.constants);
  }

  #overFour(index: Index): string {
    const known = this.#o.known;
    if (known && known.index.key() === index.key()) return known.overFour;
    return `(${affine(index, this.#o.variables, this.#o.constants)}) / 4u`;
  }
}

function accessOf(index: Index, along: number): Access {
  if (along < 0) return "scalar";
  if (!index.uses(along)) return "splat";
  return index.coef[along] === 1 && aligned(index, along) ? "vector" : "gather";
}

/** WGSL of an index: u32 arithmetic wraps, so negative parts cancel as long as the result is not negative. */
export function affine(index: Index, variables: readonly string[], constants: Constants): string {
  const scaled = (x: string, n: number): string => (n === 1 ? x : `${x} * ${constants.of(n)}`);
  const terms = index.coef.flatMap((c, i) => (c === 0 ? [] : [scaled(variables[i], c)]));
  for (const q of index.quotients)
    terms.push(scaled(constants.quotient(affine(q.of, variables, constants), q.div), q.mul));
  if (index.off !== 0 || terms.length === 0) terms.push(constants.of(index.off));
  return terms.join(" + ");
}

function literal(value: number, dtype: DType): string {
  if (dtype === "f16") return f32(Math.max(-65504, Math.min(65504, value)));
  if (dtype === "f32") return f32(Math.max(-3.4028234e38, Math.min(3.4028234e38, value)));
  if (dtype === "bool") return value !== 0 ? "true" : "false";
  return dtype === "i32" ? `i32(${value | 0})` : `${value >>> 0}u`;
}
