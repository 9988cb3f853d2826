// Everything that check:deep checks, and how a budget of cases is shared out: host checks cost a millisecond a case and get
// most of them, those that compile kernels cost up to a second.

import { allOps } from "../../engine/ops/op.ts";
import type { Check } from "../../engine/testing/check.ts";
import { type AnyFamily, kernelChecks } from "../../engine/testing/kernels.ts";
import { drawLarge } from "../../engine/testing/large.ts";
import { lawChecks } from "../../engine/testing/laws.ts";
import { opChecks } from "../../engine/testing/ops.ts";
import { convForward, convInputGrad, convWeightGrad } from "../../kernels/conv.ts";
import { families as direct } from "../../kernels/conv_direct.ts";
import { families as random } from "../../kernels/random.ts";

/** Families that no op lowers to as they are: parts of others, and kernels whose op is a view. */
const parts: readonly AnyFamily[] = [convForward, convInputGrad, convWeightGrad, ...direct, ...random];

export function suite(): Check[] {
  const ops = allOps().filter((op) => op.lower.kind !== "leaf");
  const used = ops.flatMap((op): AnyFamily[] => (op.lower.kind === "kernel" ? [op.lower.family] : []));
  const families = [...new Map([...used, ...parts].map((f) => [f.name, f])).values()];
  const large = lawChecks(drawLarge, "large programs");
  return [...ops.flatMap(opChecks), ...families.flatMap(kernelChecks), ...lawChecks(), ...large];
}

export function keyOf(check: Check): string {
  return `${check.subject}: ${check.law}`;
}

/** Share of a budget: programs are the richest cases, kernels on a device the dearest. */
function weightOf({ subject, law, needs }: Check): number {
  const kind = subject.split(" ")[0];
  if (kind === "large") return needs === "gpu" ? 20 : 5; // a product of large sides takes the host a second
  if (kind === "programs") return needs === "gpu" ? 40 : 600;
  if (kind === "kernel") return needs === "host" ? 10 : 20;
  return needs === "gpu" ? 6 : law === "record" ? 10 : 30;
}

/** Cases of each check, in the order of `checks`: together at least `cases`, and one for each. */
export function share(checks: readonly Check[], cases: number): number[] {
  const weights = checks.map(weightOf);
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => Math.max(1, Math.ceil((cases * w) / total)));
}

/** A line when the minimum of one case for each check makes the run noticeably longer than what was asked for, else null. */
export function atLeast(checks: readonly Check[], cases: number): string | null {
  const total = share(checks, cases).reduce((a, b) => a + b, 0);
  if (total <= 1.05 * cases) return null;
  return `--cases ${cases} becomes ${total} cases: each of the ${checks.length} checks gets its share, rounded up, and at least one.`;
}
