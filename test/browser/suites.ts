// The test files that run in a browser as they are: those of the engine and the kernels that ask nothing of Node.

/** All of them: `npm run test:browser`. */
export const SUITES = ["tiny", "ops", "autograd", "compile", "fuse", "nn", "schedule", "views"].map(
  (name) => `${name}.test.ts`,
);

/** Those that `npm test` runs too. */
export const QUICK = SUITES.slice(0, 4);
