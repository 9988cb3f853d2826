// What all optimisers share: which parameters they move, in which groups, and the state that they keep beside them. The
// state is Parameters, updated in place by the compiled step and saved with a checkpoint; all that happens to one parameter
// in a step is elementwise, so that it becomes one fused kernel. The rules themselves are sgd.ts and adam.ts.

import { ShapeError, show } from "../error.ts";
import { numel, sameShape } from "../shape.ts";
import { Parameter } from "../state.ts";
import { full, type Tensor } from "../tensor.ts";

/** Parameters that are treated differently from the rest. */
export interface ParameterGroup {
  /** Whether a parameter belongs here; the first group that takes it has it. */
  match(name: string, parameter: Parameter): boolean;
  /** Factor on the rate of the step; 1 when absent. Not used where the step gives this group a rate of its own. */
  readonly lr?: number;
  /** Replaces the optimiser's weight decay. */
  readonly weightDecay?: number;
}

export interface OptimizerOptions {
  readonly weightDecay?: number;
  readonly groups?: readonly ParameterGroup[];
}

export interface UpdateOptions {
  /** As a tensor fed to the step it varies without a new trace. */
  readonly lr: Tensor | number;
  /** Rates of `groups`, in their order, where they are no fixed multiples of `lr` (a schedule with a floor, say). */
  readonly groupLr?: readonly (Tensor | number)[];
  /** bool []: where it is false nothing changes, neither parameters nor the optimiser's state (see LossScaler). */
  readonly when?: Tensor;
}

/** A parameter with the settings of its group. */
export interface Target {
  readonly name: string;
  readonly parameter: Parameter;
  /** Index of its group; -1: none. */
  readonly group: number;
  readonly lr: number;
  readonly weightDecay: number;
}

/** f32 zeros in the shape of a parameter, saved with the optimiser. */
export function zerosLike(p: Parameter): Parameter {
  return new Parameter(p.shape, () => new Float32Array(numel(p.shape)), { trainable: false });
}

/** Trainable parameters by name, each once: a tied weight goes by its first name. */
export function distinct(params: ReadonlyMap<string, Parameter>): Map<string, Parameter> {
  const seen = new Set<Parameter>();
  return new Map([...params].filter(([, p]) => p.trainable && seen.size < seen.add(p).size));
}

export abstract class Optimizer {
  protected readonly entries: readonly Target[];
  readonly #slots = new Map<string, Parameter>();
  #when: Tensor | undefined;

  /**
   * `params` by name: frozen ones are left out and get no state; one that has several names is updated once, under the first.
   * Throws RangeError when nothing is left.
   */
  constructor(params: ReadonlyMap<string, Parameter>, { weightDecay = 0, groups = [] }: OptimizerOptions) {
    const trainable = distinct(params);
    if (trainable.size === 0) {
      const got = params.size === 0 ? "none at all" : `${params.size}, all frozen`;
      throw new RangeError(`optimiser: expected a trainable parameter, got ${got}`);
    }
    this.entries = [...trainable].map(([name, parameter]) => {
      const index = groups.findIndex((g) => g.match(name, parameter));
      const group = groups[index];
      return { name, parameter, group: index, lr: group?.lr ?? 1, weightDecay: group?.weightDecay ?? weightDecay };
    });
  }

  /** What `grad` should be taken with respect to, in the order `step` expects. */
  get targets(): Parameter[] {
    return this.entries.map((e) => e.parameter);
  }

  /**
   * One update from the gradients of `targets`. Throws ShapeError when they do not belong to them, TypeError without a rate.
   */
  step(grads: readonly Tensor[], o: UpdateOptions): void {
    if ((o as UpdateOptions | undefined)?.lr === undefined)
      throw new TypeError("step needs { lr }, a number or a tensor: step(grads, { lr: 1e-3 })");
    const { lr, groupLr, when } = o;
    if (grads.length !== this.entries.length)
      throw new ShapeError(`step: ${grads.length} gradients for ${this.entries.length} parameters (use \`targets\`)`);
    this.entries.forEach(({ name, parameter }, i) => {
      if (sameShape(grads[i].shape, parameter.shape)) return;
      const shapes = `${show(parameter.shape)}, got ${show(grads[i].shape)}`;
      throw new ShapeError(`step: expected for ${name} a gradient of ${shapes} (use the order of \`targets\`)`);
    });
    this.#when = when;
    const common = scalar(lr);
    const rates = this.entries.map((e) => rateOf(e, common, groupLr?.[e.group]));
    this.update(
      grads.map((g) => g.cast("f32")),
      rates,
    );
    this.#when = undefined;
  }

  /** Everything a resumed run needs, by name. */
  state(): Map<string, Parameter> {
    return new Map(this.#slots);
  }

  /** Assigns new values to parameters and slots through `set`. Gradients are f32; they and the rates lie like `entries`. */
  protected abstract update(grads: readonly Tensor[], rates: readonly Tensor[]): void;

  /** Adds named state: one like each parameter, as `kind.parameter`. */
  protected slots(kind: string): ReadonlyMap<string, Parameter> {
    const made = new Map(this.entries.map(({ name, parameter }) => [name, zerosLike(parameter)]));
    for (const [name, slot] of made) this.#slots.set(`${kind}.${name}`, slot);
    return made;
  }

  /** Adds one number of state that starts at zero. */
  protected scalar(name: string): Parameter {
    const made = new Parameter([], new Float32Array(1), { trainable: false });
    this.#slots.set(name, made);
    return made;
  }

  /** `state <- value`, unless the step is skipped. */
  protected set(state: Parameter, value: Tensor): void {
    state.assign(this.#when ? this.#when.where(value, state) : value);
  }
}

const scalar = (lr: Tensor | number): Tensor => (typeof lr === "number" ? full([], lr) : lr);

function rateOf({ lr }: Target, common: Tensor, own: Tensor | number | undefined): Tensor {
  if (own !== undefined) return scalar(own);
  return lr === 1 ? common : common.mul(lr);
}

/** Throws RangeError unless 0 <= value < 1. */
export function fraction(name: string, value: number): number {
  if (!(value >= 0 && value < 1)) throw new RangeError(`${name}: expected 0 <= ${name} < 1, got ${value}`);
  return value;
}
