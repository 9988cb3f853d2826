// Configuration files of other libraries, read with suspicion: every field is asked for by its type, and a value that this
// code would ignore silently is refused instead. Used by the readers of each library's configurations.

/** A configuration that is damaged, or of a network that this project does not have. One line. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

const MAX_DEPTH = 256;
const MAX_LEVELS = 16;

type Fields = Readonly<Record<string, unknown>>;

/** The fields of one JSON object, under a name for messages ("vae/config.json"). */
export class ConfigReader {
  readonly #fields: Fields;
  readonly #label: string;

  /** Throws ConfigError when `json` is no object. */
  constructor(json: unknown, label: string) {
    this.#label = label;
    if (typeof json !== "object" || json === null || Array.isArray(json))
      throw new ConfigError(`${label}: expected an object with fields, got ${JSON.stringify(json)?.slice(0, 40)}`);
    this.#fields = json as Fields;
  }

  has(key: string): boolean {
    return this.#value(key) !== undefined;
  }

  /** A whole number from 1; `otherwise` where the field is absent or null. */
  count(key: string, otherwise?: number): number {
    return this.#typed(key, otherwise, "a whole number of at least 1", isCount);
  }

  /** How many layers or blocks, from 1: one by one they are made, so a damaged file must not ask for a million. */
  depth(key: string, otherwise?: number): number {
    const isDepth = (v: unknown): v is number => isCount(v) && v <= MAX_DEPTH;
    return this.#typed(key, otherwise, `a whole number from 1 to ${MAX_DEPTH}`, isDepth);
  }

  /** Counts, at least one; a single number stands for `times` equal ones where that is given. */
  counts(key: string, times?: number): readonly number[] {
    const value = this.#value(key);
    if (times !== undefined && isCount(value)) return new Array<number>(times).fill(value);
    const list = this.#typed(key, undefined, `a list of 1 to ${MAX_LEVELS} whole numbers of at least 1`, isCounts);
    if (times !== undefined && list.length !== times) this.refuse(key, `expected ${times} numbers`);
    return list;
  }

  number(key: string, otherwise?: number): number {
    return this.#typed(key, otherwise, "a number", (v): v is number => typeof v === "number");
  }

  numbers(key: string): readonly number[] {
    const isNumbers = (v: unknown): v is number[] => Array.isArray(v) && v.every((x) => typeof x === "number");
    return this.#typed(key, undefined, "a list of numbers", isNumbers);
  }

  flag(key: string, otherwise?: boolean): boolean {
    return this.#typed(key, otherwise, "true or false", (v): v is boolean => typeof v === "boolean");
  }

  /** A list of flags, which may be written as 0 and 1. */
  flags(key: string): readonly boolean[] {
    const isFlags = (v: unknown): v is (boolean | number)[] =>
      Array.isArray(v) && v.every((x) => typeof x === "boolean" || x === 0 || x === 1);
    return this.#typed(key, undefined, "a list of true and false", isFlags).map(Boolean);
  }

  text(key: string, otherwise?: string): string {
    return this.#typed(key, otherwise, "a text", (v): v is string => typeof v === "string");
  }

  /** What `table` says of a text. */
  choice<T>(key: string, table: Readonly<Record<string, T>>, otherwise: string): T {
    const value = this.text(key, otherwise);
    if (!Object.hasOwn(table, value)) this.refuse(key, `expected one of ${Object.keys(table).join(", ")}`);
    return table[value];
  }

  texts(key: string): readonly string[] {
    const isTexts = (v: unknown): v is string[] => Array.isArray(v) && v.every((x) => typeof x === "string");
    return this.#typed(key, undefined, "a list of texts", isTexts);
  }

  /** The fields of an object inside. */
  inside(key: string): ConfigReader {
    return new ConfigReader(this.#value(key), `${this.#label}: ${key}`);
  }

  /** Throws unless the field is absent, null or one of `supported`: others would need code that is not here. */
  only(key: string, ...supported: readonly (string | number | boolean)[]): void {
    const value = this.#value(key);
    if (value === undefined || supported.some((s) => s === value)) return;
    this.refuse(key, `only ${supported.map((s) => JSON.stringify(s)).join(" or ")} is supported`);
  }

  /** Throws ConfigError about a field. */
  refuse(key: string, what: string): never {
    const value = JSON.stringify(this.#fields[key]) ?? "nothing";
    throw new ConfigError(
      `${this.#label}: ${key} is ${value.length > 60 ? `${value.slice(0, 60)}...` : value}: ${what}`,
    );
  }

  #value(key: string): unknown {
    return Object.hasOwn(this.#fields, key) ? (this.#fields[key] ?? undefined) : undefined;
  }

  #typed<T>(key: string, otherwise: T | undefined, kind: string, is: (value: unknown) => value is T): T {
    const value = this.#value(key) ?? otherwise;
    return is(value) ? value : this.refuse(key, `expected ${kind}`);
  }
}

/** Sizes of networks: beyond a million of anything there is no network any more. */
function isCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 1_000_000;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.length <= MAX_LEVELS && value.every(isCount);
}
