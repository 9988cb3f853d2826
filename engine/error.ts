// The engine's error types and the one formatter of shapes. A message says: op, what was expected, what came, where
// they disagree; then one line of help when there is a usual cause.

/** Shapes that an op cannot take. Thrown where the op is called, not when it runs. */
export class ShapeError extends Error {
  override name = "ShapeError";
}

/** A dtype that an op cannot take. */
export class DTypeError extends Error {
  override name = "DTypeError";
}

/** No adapter, a lost device, a refused shader, or a limit of the adapter. */
export class DeviceError extends Error {
  override name = "DeviceError";
}

/** The adapter's compiler refused a kernel: an op's or a variant's WGSL is wrong. Shows the line, the label and the ops. */
export class KernelError extends DeviceError {
  override name = "KernelError";
}

/** A buffer could not be had: the adapter's memory, or `memoryLimit`, is used up. Lists the largest live buffers. */
export class OutOfMemoryError extends DeviceError {
  override name = "OutOfMemoryError";
}

/** The device is gone (driver reset, unplugged, closed by another) and with it what only it held. Every later call throws it. */
export class DeviceLostError extends DeviceError {
  override name = "DeviceLostError";
}

/** The result of a compiled step was used after two later calls of the same step had overwritten it. */
export class StaleTensorError extends Error {
  override name = "StaleTensorError";
}

/** What a caller of plain JavaScript passed instead: `undefined`, `"1"`, `an array`, `a Map`. */
export function got(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return "an array";
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if ("shape" in value && "dtype" in value) return `${value}`; // a tensor, whose class a bundler may have renamed
  const kind = Object.getPrototypeOf(value)?.constructor?.name ?? "Object";
  return kind === "Object" ? "an object" : `a ${kind}`;
}

/** `[8, 64]` */
export function show(shape: readonly number[]): string {
  return `[${shape.join(", ")}]`;
}

/** A value that the adapter cannot bind: which, its bytes, the limit's name and what to do. */
export function tooLargeError(what: string, bytes: number, limit: number, help: string): DeviceError {
  const [taken, most] = [bytes, limit].map((n) => n.toLocaleString("en"));
  return new DeviceError(
    `${what} takes ${taken} bytes in memory, and this adapter binds at most ${most} at once (maxStorageBufferBindingSize): ${help}, or use a smaller batch`,
  );
}

/** What to do about a value that was given, and about one that is computed. */
export const SMALLER = {
  leaf: "make it of several smaller tensors",
  computed: "compute it in parts along an axis, each stored alone",
};
