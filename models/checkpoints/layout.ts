// How files of other programs name and cut the tensors of a model, as data: a layout says of each name in a file which
// parameters its tensor becomes. `loadForeign` fills a model by one; importing and exporting files go by the same layouts.
// The tables for each library are in the files beside this one. Order of axes: files are torch's, [out, in, ...kernel].

import { LoadError, load, torchShape } from "../../engine/checkpoint.ts";
import { openTensors, type Parameter, type TensorFile, type TensorStore } from "../../engine/index.ts";

type Shape = readonly number[];

/** Where one tensor of a file goes. */
export interface Target {
  /** Parameters; several: its rows in equal parts, in this order (fused query, key, value). None: it is no weight. */
  readonly names: readonly string[];
  /** A matrix that the file holds as [in, out]. */
  readonly transposed?: boolean;
}

/** Where the tensor of a name goes. A name that nothing is known of comes back as it is, and is then named as extra. */
export type Layout = (name: string) => Target;

export interface Rule {
  /** Matches whole names. */
  readonly from: RegExp;
  /** Names here, with $1 ... for the groups; a list as in Target. */
  readonly to: string | readonly string[];
  readonly transposed?: boolean;
}

/** The first rule that matches decides; other names are as they are. */
export function byRules(rules: readonly Rule[]): Layout {
  return (name) => {
    for (const { from, to, transposed } of rules) {
      const match = from.exec(name);
      if (match?.index !== 0 || match[0].length !== name.length) continue;
      return { names: [to].flat().map((t) => name.replace(from, t)), transposed };
    }
    return { names: [name] };
  };
}

/** A layout of a function from name to name; null: no weight. */
export function byName(rename: (name: string) => string | null): Layout {
  return (name) => ({ names: [rename(name) ?? []].flat() });
}

/** Names in the file begin with `prefix`; others are no weights of this model. */
export function below(prefix: string, inside: Layout): Layout {
  return (name) => (name.startsWith(prefix) ? inside(name.slice(prefix.length)) : { names: [] });
}

/** A part of a tensor in a file, which one parameter takes. */
export interface Source {
  readonly name: string;
  /** Which of `count` equal parts along the first axis. */
  readonly part: number;
  readonly count: number;
  readonly transposed: boolean;
}

/**
 * A file as if it had been written with our names: fused tensors cut, matrices turned, axes of size 1 as `into` has them
 * (1x1 convolutions for linear layers). Axes stay in torch's order. Closing it closes the file.
 */
export class ArrangedFile implements TensorFile {
  readonly tensors: TensorFile["tensors"];
  readonly metadata: TensorFile["metadata"];
  readonly #file: TensorFile;
  readonly #sources: ReadonlyMap<string, Source>;

  /** Throws LoadError when two tensors become one parameter, or one cannot be cut or turned. */
  constructor(file: TensorFile, layout: Layout, into: ReadonlyMap<string, Parameter>, label: string) {
    const tensors = new Map<string, { dtype: Info["dtype"]; shape: Shape }>();
    const sources = new Map<string, Source>();
    const problems: string[] = [];
    for (const [name, { dtype, shape }] of file.tensors) {
      const { names, transposed = false } = layout(name);
      const whole = transposed ? [...shape].reverse() : shape;
      const cut = whole.length > 0 ? [whole[0] / names.length, ...whole.slice(1)] : whole;
      if (transposed && shape.length !== 2) problems.push(`no matrix: ${name}, [${shape}]`);
      else if (names.length > 1 && !Number.isInteger(cut[0] ?? Number.NaN))
        problems.push(`not in ${names.length} equal parts: ${name}, [${shape}]`);
      else
        for (const [part, ours] of names.entries()) {
          const other = sources.get(ours)?.name;
          if (other !== undefined) problems.push(`twice: ${ours}, from ${other} and ${name}`);
          sources.set(ours, { name, part, count: names.length, transposed });
          tensors.set(ours, { dtype, shape: squeezed(cut, into.get(ours)) });
        }
    }
    if (problems.length > 0) throw new LoadError(`${label} does not fit:\n  ${problems.join("\n  ")}`);
    this.tensors = tensors;
    this.metadata = file.metadata;
    this.#file = file;
    this.#sources = sources;
  }

  async read(name: string): Promise<Data> {
    const source = this.source(name);
    return this.#arranged(await this.#file.read(source.name), source) as Data;
  }

  async readFloat64(name: string): Promise<Float64Array> {
    const source = this.source(name);
    return this.#arranged(await this.#file.readFloat64(source.name), source) as Float64Array;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Where a tensor is in the file below. Throws LoadError when there is none of this name. */
  source(name: string): Source {
    const source = this.#sources.get(name);
    if (!source) throw new LoadError(`there is no tensor for ${name}`);
    return source;
  }

  #arranged(values: Data | Float64Array, { name, part, count, transposed }: Source): Data | Float64Array {
    const shape = (this.#file.tensors.get(name) as Info).shape;
    const whole = transposed ? turned(values, shape[0], shape[1]) : values;
    return count === 1 ? whole : whole.slice((part * whole.length) / count, ((part + 1) * whole.length) / count);
  }
}

type Info = TensorFile["tensors"] extends ReadonlyMap<string, infer T> ? T : never;
type Data = Awaited<ReturnType<TensorFile["read"]>>;

/** The parameter's shape in torch's order where only axes of size 1 tell it from `shape`; otherwise `shape`. */
function squeezed(shape: Shape, p: Parameter | undefined): Shape {
  if (!p) return shape;
  const wanted = torchShape(p);
  const plain = (s: Shape): string => s.filter((n) => n !== 1).join();
  return plain(shape) === plain(wanted) ? wanted : shape;
}

/** [rows, columns] -> [columns, rows] */
function turned<T extends Data | Float64Array>(values: T, rows: number, columns: number): T {
  const out = values.slice() as T;
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c];
  return out;
}

/** The stored bytes of one of our tensors, out of a file with the layout by which `source` was found. */
export async function* cutPieces(
  file: TensorStore,
  { name, part, count, transposed }: Source,
): AsyncGenerator<Uint8Array> {
  const { shape } = file.tensors.get(name) as Info;
  const size = shape.reduce((a, b) => a * b, 1) / count;
  if (transposed) yield* turnedBytes(file.pieces(name), shape, part, count);
  else yield* file.pieces(name, part * size, (part + 1) * size);
}

/** The stored bytes of a tensor of a layout, out of a file with our names: what `cutPieces` took apart. */
export async function* joinPieces(file: TensorStore, { names, transposed }: Target): AsyncGenerator<Uint8Array> {
  const shapes = names.map((name) => (file.tensors.get(name) as Info).shape);
  if (!transposed) for (const name of names) yield* file.pieces(name);
  else {
    const pieces = names.map((name) => file.pieces(name));
    const rows = shapes.reduce((sum, [n]) => sum + n, 0);
    const all = async function* () {
      for (const piece of pieces) yield* piece;
    };
    yield* turnedBytes(all(), [rows, shapes[0][1]], 0, 1);
  }
}

/** [rows, columns] = `shape` to [columns, rows], and of that one of `count` equal parts. */
async function* turnedBytes(
  pieces: AsyncIterable<Uint8Array>,
  [rows, columns]: Shape,
  part: number,
  count: number,
): AsyncGenerator<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  const width = all.reduce((sum, piece) => sum + piece.length, 0) / (rows * columns);
  const from = new Uint8Array(rows * columns * width);
  let at = 0;
  for (const piece of all) {
    from.set(piece, at);
    at += piece.length;
  }
  const to = new Uint8Array(from.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++)
      for (let b = 0; b < width; b++) to[(c * rows + r) * width + b] = from[(r * columns + c) * width + b];
  yield to.subarray((part * to.length) / count, ((part + 1) * to.length) / count);
}

/**
 * Fills parameters from a file of another program, by its path or open already, as `load` does from one of ours. Floats of
 * any width; kernels are reordered.
 * @throws LoadError naming every missing, extra and misshapen tensor: nothing is loaded then; the errors of `openTensors`
 */
export async function loadForeign(
  from: string | TensorFile,
  into: ReadonlyMap<string, Parameter>,
  layout: Layout,
): Promise<void> {
  const label = typeof from === "string" ? from : "the file";
  const file = typeof from === "string" ? await openTensors(from) : from;
  try {
    await load(new ArrangedFile(file, layout, into, label), into, { layout: "torch", label });
  } finally {
    if (typeof from === "string") await file.close();
  }
}
