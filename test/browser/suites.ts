// The test files that run in a browser as they are: those of the engine that ask nothing of Node. Named from test/.

/** What `npm test` runs too: values and gradients of every op, compiled steps, a network that learns. */
export const QUICK = ["tiny.test.ts", "ops.test.ts", "compile.test.ts"];

/** `npm run test:browser`. */
export const SUITES = [
  ...QUICK,
  "autograd.test.ts",
  "custom.test.ts",
  "errors.test.ts",
  "explain.test.ts",
  "functions.test.ts",
  "fuse.test.ts",
  "kernels_gemm.test.ts",
  "kernels_rest.test.ts",
  "limits.test.ts",
  "nn.test.ts",
  "schedule.test.ts",
  "views.test.ts",
  "browser/kernels.ts",
];
