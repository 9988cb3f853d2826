// difference() of the public testing entry as an assertion of vitest.

import { expect } from "vitest";
import { type CloseOptions, difference } from "../engine/testing/close.ts";

export { type CloseOptions, difference };

/** Asserts closeness; `what` is the beginning of the message. */
export function expectClose(got: ArrayLike<number>, want: ArrayLike<number>, what: string, o: CloseOptions): void {
  const problem = difference(got, want, o);
  expect(problem === null, `${what}: ${problem}`).toBe(true);
}
