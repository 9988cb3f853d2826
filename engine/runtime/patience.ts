// Waiting for a software adapter without taking its processor away. While a promise of Dawn's is pending, its Node binding
// asks for events in every turn of the event loop, without a pause, and so keeps a core busy that the adapter could compute
// with. Called wherever the engine waits for the device (gpu.ts, tracing.ts, ../tune.ts, ../testing); not for GPUs, which
// compute elsewhere.

/** Nobody writes to it: waiting for it is sleeping. Browsers do not let a page sleep, nor do they poll as Node's binding does. */
const cell = typeof setImmediate === "function" ? new Int32Array(new SharedArrayBuffer(4)) : null;

/** Longest sleep in ms: other work of the event loop has a turn at least as often. */
const LONGEST = 1;
/** A sleep is this part of the time waited so far, so that short waits stay short. */
const PART = 1 / 8;

/** `promise`, with a sleep of up to 1 ms in each turn of the event loop until it has settled; in a browser, `promise`. */
export async function patiently<T>(promise: Promise<T>): Promise<T> {
  if (!cell) return await promise;
  let over = false;
  const settle = (): void => {
    over = true;
  };
  promise.then(settle, settle);
  const start = performance.now();
  while (!over) {
    await new Promise((resolve) => setImmediate(resolve));
    if (!over) Atomics.wait(cell, 0, 0, Math.min(LONGEST, PART * (performance.now() - start)));
  }
  return await promise;
}

/** `promise` of a device, waited for as its kind asks: patiently where `software` says that it computes on this processor. */
export function waitFor<T>(promise: Promise<T>, software: boolean): Promise<T> {
  return software ? patiently(promise) : promise;
}
