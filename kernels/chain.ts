// Several kernels as one: a workgroup runs them one after another, with a barrier in between. For kernels so small that
// starting a dispatch costs more than what it computes. Works on their texts, of which it needs nothing but the conventions of
// README.md, so that it serves every family and those of others. Which dispatches to join is decided in engine/plan/chain.ts.

import { rewriteAccesses } from "./access.ts";
import { type Caps, type KernelSource, type Pass, type Scalar, uniforms, wgsl } from "./wgsl.ts";

/** A kernel's text taken apart, as far as joining it with others asks for. */
export interface Kernel {
  readonly source: KernelSource;
  /** `enable ...;` and `diagnostic(...);` */
  readonly directives: readonly string[];
  /** Storage bindings in order. */
  readonly bindings: readonly { readonly name: string; readonly element: string }[];
  /** Of the uniforms, whose values are the source's words. */
  readonly fields: readonly (readonly [name: string, type: Scalar])[];
  /** What else is declared, `main` included: by these names, in this text. */
  readonly names: readonly string[];
  readonly text: string;
  /** Threads of a workgroup. */
  readonly size: number;
  /** What `main` is called with, by what WGSL calls it. */
  readonly builtins: readonly string[];
  /** Has memory that its workgroup shares, or barriers: its threads must be those of a whole workgroup. */
  readonly shares: boolean;
  /** Has memory that its workgroup shares, which is zero where a workgroup begins: a second one would find what the first left. */
  readonly remembers: boolean;
  /** Talks to its subgroup, which must be all of its own workgroup. */
  readonly shuffles: boolean;
}

const NAME = /^(?:@\w+(?:\([^)]*\))?\s*)*(?:fn|struct|alias|const|var(?:<[^>]*>)?)\s+(\w+)/;
const BINDING = /^@group\(0\) @binding\((\d+)\) var<(storage|uniform)[^>]*> (\w+): (?:array<(.*)>|\w+);$/;
const MAIN = /^@compute\s+@workgroup_size\((\d+)\)\s+fn main\(([^{]*?),?\s*\)\s*\{/;
const PARAMETER = /^@builtin\((\w+)\)\s*\w+\s*:\s*[\w<>]+$/;
/** Where names that are not declared at module scope come from: locals, and parameters, members and whatever else has a type. */
const LOCAL = /\b(?:let|var|const)\s+(\w+)|(\w+)\s*:/g;
/** Names that a chain gives. */
const GIVEN = /^(?:place|load|store)_\d|__\d+$/;
/** What cannot be renamed word by word: the uniforms as a whole, and members behind a gap. */
const UNCLEAR = /(?<![\w.])u(?![\w.])|\bUniforms\b|\.\s+[A-Za-z_]|\/\*/;

/** The parts of a kernel; null where its text has something that this file knows nothing of. */
export function takeApart(source: KernelSource): Kernel | null {
  const items = itemsOf(source.wgsl.replace(/\/\/.*$/gm, ""));
  const directives = items.filter((t) => /^(enable|diagnostic)\b/.test(t));
  const bindings: { name: string; element: string }[] = [];
  const rest: string[] = [];
  let fields: Kernel["fields"] = [];
  let main: RegExpExecArray | null = null;
  for (const item of items.slice(directives.length)) {
    const binding = BINDING.exec(item);
    if (binding?.[2] === "storage") bindings[Number(binding[1])] = { name: binding[3], element: binding[4] };
    else if (item.startsWith("struct Uniforms ")) fields = fieldsOf(item);
    else if (binding?.[3] !== "u") rest.push(item);
    main ??= MAIN.exec(item);
  }
  const names = rest.map((item) => NAME.exec(item)?.[1] ?? "");
  const outer = new Set([...names, ...bindings.map((b) => b?.name), "u"]);
  const unknown = (item: string): boolean =>
    /^(var<private>|@group)/.test(item) || UNCLEAR.test(item) || hides(item, outer);
  const parameters = main?.[2].split(",").map((p) => PARAMETER.exec(p.trim())?.[1] ?? "") ?? [];
  if (!main || names.includes("") || parameters.includes("") || rest.some(unknown)) return null;
  if (fields.length !== source.uniforms.length || Object.keys(bindings).length < bindings.length) return null;
  return {
    source,
    directives,
    bindings,
    fields,
    names,
    text: rest.map((item) => item.replace(/^@compute\s+@workgroup_size\(\d+\)\s+/, "")).join("\n"),
    size: Number(main[1]),
    builtins: parameters,
    shares: /var<workgroup>|Barrier\(|workgroupUniformLoad/.test(source.wgsl),
    remembers: source.wgsl.includes("var<workgroup>"),
    shuffles: /\b(?:subgroup|quad)[A-Z]/.test(source.wgsl),
  };
}

/** What a module declares, each with its body. */
function itemsOf(text: string): string[] {
  const items: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "{") depth++;
    const closes = text[i] === "}" && --depth === 0;
    if (!closes && !(text[i] === ";" && depth === 0)) continue;
    const item = text.slice(start, i + 1).trim();
    if (item !== ";") items.push(item);
    start = i + 1;
  }
  return items;
}

function fieldsOf(struct: string): Kernel["fields"] {
  return [...struct.matchAll(/(\w+): ([fiu]32)\s*[,}]/g)].map(([, name, type]) => [name, type as Scalar]);
}

/** Does it call something inside like something outside, or like what a chain adds? Such names could not be told apart. */
function hides(item: string, outer: ReadonlySet<string>): boolean {
  const inside = [...item.replace(NAME, "").matchAll(LOCAL)].map(([, local, typed]) => local ?? typed);
  return inside.some((name) => outer.has(name) || GIVEN.test(name));
}

/** What a chain knows of the place and size of a thread's workgroup in the kernel that it is made of. */
const ARGUMENTS: Readonly<Record<string, (groups: string, group: string, thread: string) => string>> = {
  workgroup_id: (_groups, group) => `vec3<u32>(${group}, 0u, 0u)`,
  num_workgroups: (groups) => `vec3<u32>(${groups}, 1u, 1u)`,
  local_invocation_index: (_groups, _group, thread) => thread,
};

/**
 * Idea: one workgroup, as large as the largest of the kernels'. Of a kernel with smaller workgroups it runs several at a time, of
 * one with more workgroups one after another. Barriers between kernels order what they do in memory, which one workgroup sees
 * as one: what a kernel writes, the next ones read.
 * Grids are one row, and one workgroup where it has memory of its own. Operands of a pass are places of the chain, which has `places` storage bindings.
 * A place that kernels see as different types is declared as one of them, or in scalars, and loaded and stored as each sees it.
 * null: these do not fit together.
 */
export function chainKernel(
  kernels: readonly Kernel[],
  operands: readonly Pass["operands"][],
  places: number,
  caps: Caps,
): KernelSource | null {
  const size = Math.max(...kernels.map((k) => k.size));
  const fits = ({ builtins, shares, remembers, shuffles, size: own, source }: Kernel): boolean =>
    builtins.every((b) => b in ARGUMENTS) &&
    (shares ? own === size : size % own === 0) &&
    (!shuffles || (caps.subgroupSize > 0 && own % caps.subgroupSize === 0)) &&
    source.workgroups[1] * source.workgroups[2] === 1 &&
    (!remembers || source.workgroups[0] === 1);
  const elements = Array.from({ length: places }, (_, p) =>
    commonType(kernels.flatMap((k, i) => k.bindings.filter((_b, j) => operands[i][j] === p).map((b) => b.element))),
  );
  if (!kernels.every(fits) || kernels.filter((k) => k.shares).length > 1 || size > caps.maxInvocations) return null;
  const bodies: string[] = [];
  const helpers = new Set<string>();
  for (const [i, kernel] of kernels.entries()) {
    let text = renamed(kernel, i, operands[i]);
    for (const [j, { element }] of kernel.bindings.entries()) {
      const place = operands[i][j];
      const common = elements[place];
      if (common === null) return null;
      const fitted = common === element ? text : converted(text, place, common, element, helpers);
      if (fitted === null) return null;
      text = fitted;
    }
    bodies.push(text);
  }
  const fields = kernels.flatMap((k, i) => [
    [`grid__${i}`, "u32", 0] as const,
    ...k.fields.map(([name, type]) => [`${name}__${i}`, type, 0] as const),
  ]);
  const text = wgsl`
    ${[...new Set(kernels.flatMap((k) => k.directives))]}
    ${elements.map((e, p) => `@group(0) @binding(${p}) var<storage, read_write> place_${p}: array<${e}>;`)}
    ${uniforms(places, fields).wgsl}
    ${[...helpers]}
    ${bodies}
    @compute @workgroup_size(${size})
    fn main(@builtin(local_invocation_index) thread: u32) {
      ${kernels.map((k, i) => callOf(k, i, size)).join("\nstorageBarrier();\n")}
    }
  `;
  return {
    label: kernels.map((k) => k.source.label).join(" + "),
    wgsl: text,
    workgroups: [1, 1, 1],
    uniforms: kernels.flatMap(({ source }) => [source.workgroups[0], ...source.uniforms]),
    flops: kernels.reduce((sum, k) => sum + (k.source.flops ?? 0), 0),
  };
}

/** Runs all workgroups of a kernel; threads of a barrier's kernel stay together, others are dealt out. */
function callOf({ size: own, builtins, shares }: Kernel, i: number, size: number): string {
  const groups = `u.grid__${i}`;
  const call = (group: string, thread: string): string =>
    `main__${i}(${builtins.map((b) => ARGUMENTS[b](groups, group, thread)).join(", ")});`;
  if (shares)
    return `for (var group = 0u; group < ${groups}; group++) { ${call("group", "thread")} workgroupBarrier(); }`;
  const per = size / own;
  const first = per === 1 ? "0u" : `thread / ${own}u`;
  const place = per === 1 ? "thread" : `thread % ${own}u`;
  return `for (var group = ${first}; group < ${groups}; group += ${per}u) { ${call("group", place)} }`;
}

/** The text of kernel `i` with names of its own: those of the chain for bindings, with a number for all others. */
function renamed({ text, names, bindings }: Kernel, i: number, operands: readonly number[]): string {
  const to = new Map(names.map((name) => [name, `${name}__${i}`]));
  for (const [j, { name }] of bindings.entries()) to.set(name, `place_${operands[j]}`);
  return text
    .replace(/@builtin\(\w+\)\s*/g, "")
    .replace(/(?<![\w.])u\.(\w+)/g, `u.$1__${i}`)
    .replace(/(?<![\w.])[A-Za-z_]\w*/g, (word) => to.get(word) ?? word);
}

/** What a place holds, as a kernel sees it. */
interface Element {
  readonly lanes: number;
  readonly scalar: Scalar;
}

const typeOf = ({ lanes, scalar }: Element): string => (lanes === 1 ? scalar : `vec${lanes}<${scalar}>`);

/** null for what is not made of 32-bit numbers, or lies otherwise than they do (vec3). */
function elementOf(type: string): Element | null {
  const [, lanes, vector, scalar] = /^(?:vec([24])<([fiu]32)>|([fiu]32))$/.exec(type) ?? [];
  if (vector) return { lanes: Number(lanes), scalar: vector as Scalar };
  return scalar ? { lanes: 1, scalar: scalar as Scalar } : null;
}

/**
 * How a place is declared that is seen as these: in scalars where widths differ, as bits where kinds of number do (a small
 * whole number is a denormal float, which an adapter may make zero); null where that is impossible.
 */
function commonType(types: readonly string[]): string | null {
  if (types.every((t) => t === types[0])) return types[0];
  const elements = types.map(elementOf).filter((e) => e !== null);
  if (elements.length < types.length) return null;
  const [first] = elements;
  const lanes = elements.every((e) => e.lanes === first.lanes) ? first.lanes : 1;
  return typeOf({ lanes, scalar: elements.every((e) => e.scalar === first.scalar) ? first.scalar : "u32" });
}

/**
 * `text`, which sees a place as `type`, for one that is declared as `common`: through functions that put a value together and
 * take it apart, which it adds to `helpers`. null where the text does more with the place than load, store and ask for its length.
 */
function converted(text: string, place: number, common: string, type: string, helpers: Set<string>): string | null {
  const name = `place_${place}`;
  const [from, to] = [elementOf(common), elementOf(type)] as [Element, Element];
  const parts = to.lanes / from.lanes;
  const view = `${to.scalar}_${to.lanes}`;
  const [load, store] = [`load_${place}_${view}`, `store_${place}_${view}`];
  const cells = Array.from({ length: parts }, (_, j) =>
    parts === 1 ? `${name}[at]` : `${name}[at * ${parts}u + ${j}u]`,
  );
  const own = typeOf({ ...to, scalar: from.scalar });
  const value = to.scalar === from.scalar ? "v" : `bitcast<${own}>(v)`;
  const whole = parts === 1 ? cells[0] : `${own}(${cells.join(", ")})`;
  helpers.add(`fn ${load}(at: u32) -> ${type} { return ${own === type ? whole : `bitcast<${type}>(${whole})`}; }`);
  const stores = cells.map((cell, j) => `${cell} = ${parts === 1 ? "w" : `w[${j}]`};`);
  helpers.add(`fn ${store}(at: u32, v: ${type}) { let w = ${value}; ${stores.join(" ")} }`);
  const counted = text.replaceAll(`arrayLength(&${name})`, `(LENGTH / ${parts}u)`);
  const more = new RegExp(`&${name}\\b|\\b${name}\\[[^;]*\\](\\.\\w+\\s*=(?!=)|(\\.\\w+)?\\s*[-+*/%&|^]=)`);
  if (more.test(counted)) return null;
  let vectors = true;
  const rewritten = rewriteAccesses(counted, name, {
    load: (index) => `${load}(${index})`,
    store: (index, component, v) => {
      vectors &&= component === null;
      return `${store}(${index}, ${v})`;
    },
  });
  return vectors ? rewritten.replaceAll("LENGTH", `arrayLength(&${name})`) : null;
}
