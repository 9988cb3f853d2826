// Module: a tree of Parameters found by walking attributes. Names are attribute paths in snake_case with dots, as checkpoints
// of the field have them (`downBlocks[0].toQ.weight` is "down_blocks.0.to_q.weight"); there is no other magic.

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
  /** All state by name: trainable parameters, frozen ones and buffers. */
  state(): Map<string, Parameter> {
    const found = new Map<string, Parameter>();
    collect(this, "", found);
    return found;
  }

  /** What an optimiser should update. */
  parameters(): Parameter[] {
    return [...this.state().values()].filter((p) => p.trainable);
  }

  /** Number of scalars in `state()`; allocates nothing. */
  count(): number {
    return [...this.state().values()].reduce((sum, p) => sum + numel(p.shape), 0);
  }

  /** Gives every parameter fresh initial values; the same seed gives the same model. */
  seed(seed: number): this {
    for (const [name, p] of this.state()) {
      const init = initializers.get(p);
      if (init) p.initialise(() => init(p.shape, keyFor(seed, name)));
    }
    return this;
  }

  /** Stops (or resumes) training of everything inside. */
  freeze(frozen = true): this {
    for (const p of this.state().values()) p.trainable = !frozen;
    return this;
  }
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
}

function collect(value: unknown, path: string, into: Map<string, Parameter>): void {
  if (value instanceof Parameter) into.set(path, value);
  else if (Array.isArray(value)) for (const [i, v] of value.entries()) collect(v, path ? `${path}.${i}` : `${i}`, into);
  else if (value instanceof Module) {
    for (const [key, v] of Object.entries(value)) collect(v, path ? `${path}.${snake(key)}` : snake(key), into);
  }
}
