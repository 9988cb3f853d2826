// gifgrad/testing: checks of ops, kernels, gradients and programs over random cases, for any test runner. Needs fast-check.

export { type Check, CheckError, type CheckOptions, type Outcome, type Report } from "./check.ts";
export { type CloseOptions, difference } from "./close.ts";
export { drawn } from "./draw.ts";
export {
  type Call,
  type DirectionalOptions,
  directional,
  type GradcheckOptions,
  gradcheck,
} from "./gradients.ts";
export { checkKernel, type KernelCheckOptions, kernelChecks } from "./kernels.ts";
export { drawLarge } from "./large.ts";
export { checkLaws, lawChecks } from "./laws.ts";
export { checkOp, opChecks } from "./ops.ts";
export { type DrawProgram, drawProgram, type MakeLeaf } from "./programs.ts";
