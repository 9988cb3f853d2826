// Module: a tree of Parameters found by walking attributes: Modules, arrays, plain objects and Maps, not `#private` fields
// and no other classes. Names are paths in snake_case with dots, as checkpoints of the field have them
// (`downBlocks[0].toQ.weight` is "down_blocks.0.to_q.weight"); keys of a Map are names as they are. No other magic.

import { numel, type Shape } from "../shape.ts";
import { Parameter, type ParameterOptions } from "../state.ts";
import { type Initializer, keyFor } from "./init.ts";

const initializers = new WeakMap<Parameter, Initializer>();

/** A parameter with an initialiser; values are made on first use, so that a model can be counted without memory. */
export function parameter(shape: Shape, init: Initializer, o: ParameterOptions = {}): Parameter {
  const p = new Parameter(shape, () => init(shape, [0, 0]), o);
  initializers.set(p, init);
  return p;
}

export abstract class Module {
  /**
   * All state by name: trainable parameters, frozen ones and buffers. A parameter that is reached in two ways (tied weights)
   * is here under both names, as files have it. Throws where two parameters have one name.
   */
  state(): Map<string, Parameter> {
    const found = new Map<string, Parameter>();
    collect(this, "", found, []);
    return found;
  }

  /** What an optimiser should update, each once. */
  parameters(): Parameter[] {
    return [...new Set(this.state().values())].filter((p) => p.trainable);
  }

  /** Number of scalars in `state()`, tied ones once; allocates nothing. */
  count(): number {
    return [...new Set(this.state().values())].reduce((sum, p) => sum + numel(p.shape), 0);
  }

  /** Gives every parameter fresh initial values, by its first name; the same seed gives the same model. */
  seed(seed: number): this {
    for (const [p, name] of new Map([...this.state()].map(([name, p]) => [p, name] as const).reverse())) {
      const init = initializers.get(p);
      if (init) p.initialise(() => init(p.shape, keyFor(seed, name)));
    }
    return this;
  }

  /**
   * Holds every weight as `dtype` from now on, buffers as they are: half the memory, for sampling. (Training in f16 keeps f32
   * weights: `inHalf`.) Do it before the first step, and load values afterwards; else Error.
   */
  convert(dtype: "f16" | "f32"): this {
    for (const p of new Set(this.state().values())) if (!p.buffer) p.convert(dtype);
    return this;
  }

  /** Stops (or resumes) training of everything inside but buffers, which are never trained. */
  freeze(frozen = true): this {
    for (const p of this.state().values()) if (!p.buffer) p.trainable = !frozen;
    return this;
  }
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}

/** `above`: what contains `value`; a link back to one of these (a parent, say) is not followed. */
function collect(value: unknown, path: string, into: Map<string, Parameter>, above: readonly unknown[]): void {
  if (value instanceof Parameter) {
    if ((into.get(path) ?? value) !== value)
      throw new Error(`two parameters are called ${path}: rename an attribute or key`);
    into.set(path, value);
    return;
  }
  const inside = children(value);
  if (inside.length === 0 || above.includes(value)) return;
  for (const [key, child] of inside) collect(child, path ? `${path}.${key}` : key, into, [...above, value]);
}

function children(value: unknown): [string, unknown][] {
  if (Array.isArray(value)) return value.map((v, i) => [`${i}`, v]);
  if (value instanceof Map) return [...value].map(([key, v]) => [`${key}`, v]);
  if (value instanceof Module || isPlain(value)) return Object.entries(value).map(([key, v]) => [snake(key), v]);
  return [];
}

function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
