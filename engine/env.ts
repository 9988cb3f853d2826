// The environment variables that the engine reads (DEBUG, DEVICE), by way of this file because a browser has none.

/** The process's environment; empty in a browser. */
export const env: Record<string, string | undefined> = typeof process === "undefined" ? {} : process.env;
