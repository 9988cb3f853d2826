// Arguments of a golden case as its JSON holds them, read by name and type. What an op asks for is remembered, so that an
// argument nobody asked for fails its case instead of being ignored in silence. Called by ops/*.ts.

/** For people, not for the op. */
const COMMENTS = ["note"];

export class Args {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #asked = new Set<string>(COMMENTS);

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  /** The argument; undefined when it is absent or null (Python's None). */
  raw(name: string): unknown {
    this.#asked.add(name);
    return this.#values[name] ?? undefined;
  }

  number(name: string, fallback?: number): number {
    return this.#typed(name, fallback, "a number", (v) => typeof v === "number");
  }
  text(name: string, fallback?: string): string {
    return this.#typed(name, fallback, "a string", (v) => typeof v === "string");
  }
  flag(name: string, fallback = false): boolean {
    return this.#typed(name, fallback, "true or false", (v) => typeof v === "boolean");
  }
  /** A list of numbers; a single number is a list of one. */
  numbers(name: string, fallback?: readonly number[]): readonly number[] {
    const value = this.raw(name);
    if (typeof value === "number") return [value];
    return this.#typed(name, fallback, "numbers", (v) => Array.isArray(v) && v.every((n) => typeof n === "number"));
  }
  /** A number, or one per axis, as torch takes strides and paddings. */
  each(name: string, fallback?: number): number | readonly number[] {
    const value = this.raw(name);
    return Array.isArray(value) ? this.numbers(name) : this.number(name, fallback);
  }

  /** Names of the given arguments that the op has not asked for. */
  unread(): string[] {
    return Object.keys(this.#values).filter((name) => !this.#asked.has(name) && this.#values[name] !== null);
  }

  #typed<T>(name: string, fallback: T | undefined, what: string, is: (value: unknown) => boolean): T {
    const value = this.raw(name) ?? fallback;
    if (value === undefined) throw new Error(`argument ${name} is missing`);
    if (!is(value)) throw new Error(`argument ${name}: expected ${what}, got ${JSON.stringify(value)}`);
    return value as T;
  }
}
