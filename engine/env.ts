// What the engine asks of the process around it, by way of this file because a browser has none.

/** Environment variables (DEBUG, DEVICE); empty in a browser. */
export const env: Record<string, string | undefined> = typeof process === "undefined" ? {} : process.env;

/** Milliseconds of processor time used so far, all threads together; in a browser, which does not tell, those of the clock. */
export function cpuMs(): number {
  if (typeof process === "undefined") return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The process, for `what` cannot do without. Throws in a browser. */
export function processFor(what: string): NodeJS.Process {
  if (typeof process === "undefined") throw new Error(`${what}: needs Node, and this is a browser`);
  return process;
}
