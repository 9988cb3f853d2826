// Losses that several models share; those of one paper live in that model's file. Each reduces to one number, the mean
// unless told otherwise, or gives one per element.

import { ShapeError, show } from "../error.ts";
import { axisOf, numel, sameShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { logSoftmax } from "./reductions.ts";

export type Reduction = "mean" | "sum" | "none";

export interface LossOptions {
  readonly reduction?: Reduction;
}

function reduced(x: Tensor, { reduction = "mean" }: LossOptions): Tensor {
  return reduction === "none" ? x : reduction === "sum" ? x.sum() : x.mean();
}

/** (a - b)^2 */
export function mse(a: Tensor, b: Tensor, o: LossOptions = {}): Tensor {
  return reduced(a.sub(b).square(), o);
}

/** |a - b| */
export function l1(a: Tensor, b: Tensor, o: LossOptions = {}): Tensor {
  return reduced(a.sub(b).abs(), o);
}

/** (a - b)^2 / (2 beta) where |a - b| < beta, |a - b| - beta / 2 beyond (Girshick 2015). */
export function smoothL1(
  a: Tensor,
  b: Tensor,
  { beta = 1, ...o }: LossOptions & { readonly beta?: number } = {},
): Tensor {
  if (beta === 0) return l1(a, b, o);
  return huber(a, b, { delta: beta, reduction: o.reduction }).mul(1 / beta);
}

/** (a - b)^2 / 2 where |a - b| < delta, delta (|a - b| - delta / 2) beyond (Huber 1964). */
export function huber(
  a: Tensor,
  b: Tensor,
  { delta = 1, ...o }: LossOptions & { readonly delta?: number } = {},
): Tensor {
  const distance = a.sub(b).abs();
  const near = distance.square().mul(0.5);
  const far = distance.sub(delta / 2).mul(delta);
  return reduced(distance.less(delta).where(near, far), o);
}

export interface BceOptions extends LossOptions {
  /** Factor of each element's loss. */
  readonly weight?: Tensor;
  /** Factor of the losses of positive targets. */
  readonly posWeight?: Tensor;
}

/** -(y log s + (1 - y) log(1 - s)) for s = sigmoid(x): finite for x of any size. */
export function bceWithLogits(x: Tensor, y: Tensor, { weight, posWeight, ...o }: BceOptions = {}): Tensor {
  const positive = posWeight ? y.mul(posWeight.sub(1)).add(1) : undefined;
  const tail = x.neg().softplus();
  const each = x.sub(x.mul(y)).add(positive ? positive.mul(tail) : tail);
  return reduced(weight ? each.mul(weight) : each, o);
}

/** -(y log p + (1 - y) log(1 - p)) for probabilities p; logarithms are cut at -100, as in torch. */
export function bce(p: Tensor, y: Tensor, { weight, ...o }: LossOptions & { readonly weight?: Tensor } = {}): Tensor {
  const log = (q: Tensor): Tensor => q.maximum(1e-38).log().maximum(-100);
  const each = y
    .mul(log(p))
    .add(
      y
        .neg()
        .add(1)
        .mul(log(p.neg().add(1))),
    )
    .neg();
  return reduced(weight ? each.mul(weight) : each, o);
}

export interface ClassOptions extends LossOptions {
  /** Axis of the classes: the last when absent. */
  readonly axis?: number;
  /** A factor per class [classes]; "mean" then divides by the factors' sum. */
  readonly weight?: Tensor;
  /** Targets of this number count for nothing. */
  readonly ignoreIndex?: number;
}

export interface CrossEntropyOptions extends ClassOptions {
  /** Share of the target that is spread evenly over all classes (Szegedy et al. 2016). */
  readonly labelSmoothing?: number;
}

/**
 * Cross entropy of softmax(logits): target i32 classes in the shape of the logits without the class axis, or f32
 * probabilities in the shape of the logits.
 */
export function crossEntropy(logits: Tensor, target: Tensor, o: CrossEntropyOptions = {}): Tensor {
  const axis = axisOf("crossEntropy", o.axis ?? -1, logits.rank);
  const classesOf = logits.shape.filter((_, i) => i !== axis);
  if (!sameShape(target.shape, target.dtype === "f32" ? logits.shape : classesOf))
    throw new ShapeError(
      `crossEntropy: expected a target of i32 classes ${show(classesOf)} or f32 probabilities ${show(logits.shape)}, got ${target.dtype}${show(target.shape)}${target.dtype === "f32" && sameShape(target.shape, classesOf) ? ' (classes are i32: target.cast("i32"))' : ""}`,
    );
  const logs = logSoftmax(logits.cast("f32"), axis);
  const smoothing = o.labelSmoothing ?? 0;
  if (target.dtype === "f32") return withProbabilities(logs, target, axis, smoothing, o);
  const { losses, factors } = picked("crossEntropy", logs, target, axis, o);
  if (smoothing === 0) return classMean(losses, factors, o);
  const classes = logits.shape[axis];
  const weighted = o.weight ? logs.mul(alongClasses(o.weight, logs, axis)) : logs;
  const even = counted(target, o).where(weighted.sum(axis).mul(-smoothing / classes), 0);
  return classMean(losses.mul(1 - smoothing).add(even), factors, o);
}

/** Negative log-likelihood: -logs[target], for logs such as those of logSoftmax. */
export function nll(logs: Tensor, target: Tensor, o: ClassOptions = {}): Tensor {
  const axis = axisOf("nll", o.axis ?? -1, logs.rank);
  const { losses, factors } = picked("nll", logs, target, axis, o);
  return classMean(losses, factors, o);
}

export interface KlOptions {
  /** The target holds logarithms of probabilities. */
  readonly logTarget?: boolean;
  /** "batchmean" divides the sum by the first axis: the mathematical definition. "mean" divides by all elements. */
  readonly reduction?: Reduction | "batchmean";
}

/** target (log target - logs): the divergence of exp(logs) from the target; 0 where the target is 0. */
export function kl(logs: Tensor, target: Tensor, { logTarget = false, reduction = "mean" }: KlOptions = {}): Tensor {
  const each = logTarget ? target.exp().mul(target.sub(logs)) : entropyTerm(target).sub(target.mul(logs));
  if (reduction === "batchmean") return each.sum().mul(1 / logs.shape[0]);
  return reduced(each, { reduction });
}

/** p log p, 0 at 0. */
function entropyTerm(p: Tensor): Tensor {
  const positive = p.greater(0);
  return positive.where(p.mul(positive.where(p, 1).log()), 0);
}

/** Losses and factors of the target classes, 0 where the target is ignored. */
function picked(op: string, logs: Tensor, target: Tensor, axis: number, o: ClassOptions) {
  const want = logs.shape.filter((_, i) => i !== axis);
  if (show(want) !== show(target.shape))
    throw new ShapeError(
      `${op}: expected a target ${show(want)} for classes along axis ${axis} of ${show(logs.shape)}, got ${show(target.shape)}`,
    );
  const classes = logs.arange(logs.shape[axis]);
  const lifted = target.reshape(logs.shape.map((n, i) => (i === axis ? 1 : n)));
  const hit = lifted
    .equal(classes.reshape(logs.shape.map((n, i) => (i === axis ? n : 1))))
    .and(counted(lifted, o).expand(logs.shape));
  const factor = o.weight ? alongClasses(o.weight, logs, axis) : undefined;
  const losses = hit
    .where(factor ? logs.mul(factor) : logs, 0)
    .sum(axis)
    .neg();
  const factors = factor ? hit.where(factor.expand(logs.shape), 0).sum(axis) : counted(target, o).cast("f32");
  return { losses, factors };
}

/** bool: targets that are not ignored. */
function counted(target: Tensor, { ignoreIndex = -100 }: ClassOptions): Tensor {
  return target.notEqual(ignoreIndex);
}

function classMean(losses: Tensor, factors: Tensor, { reduction = "mean" }: LossOptions): Tensor {
  return reduction === "mean" ? losses.sum().div(factors.sum()) : reduced(losses, { reduction });
}

function withProbabilities(
  logs: Tensor,
  target: Tensor,
  axis: number,
  smoothing: number,
  o: CrossEntropyOptions,
): Tensor {
  const classes = logs.shape[axis];
  const p = smoothing === 0 ? target : target.mul(1 - smoothing).add(smoothing / classes);
  const weighted = o.weight ? p.mul(alongClasses(o.weight, logs, axis)) : p;
  const losses = weighted.mul(logs).sum(axis).neg();
  return (o.reduction ?? "mean") === "mean" ? losses.sum().mul(classes / numel(logs.shape)) : reduced(losses, o);
}

/** [classes], to broadcast along the class axis. */
function alongClasses(weight: Tensor, logs: Tensor, axis: number): Tensor {
  return weight.reshape(logs.shape.map((_, i) => (i === axis ? -1 : 1)));
}
