// Messages of what goes wrong on a device: a kernel that the compiler refuses, no memory left, the device gone. Makes errors
// and throws none: gpu.ts reports them at the next call, because WebGPU tells of them late.

import type { KernelSource } from "../../kernels/wgsl.ts";
import { DeviceLostError, KernelError, OutOfMemoryError } from "../error.ts";

/** A buffer in use, for error messages. */
export interface LiveBuffer {
  readonly label: string;
  readonly bytes: number;
}

/** What a compiler says of a text: a position (counted from 1) and why. */
export type Complaint = Pick<GPUCompilationMessage, "lineNum" | "linePos" | "length" | "message">;

const mebibytes = (bytes: number): string =>
  bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${bytes.toLocaleString("en")} bytes`;

/** `ops` are the names of what was fused into the kernel; `message` is the device's own. */
export function kernelError(
  step: string,
  { label, wgsl }: Pick<KernelSource, "label" | "wgsl">,
  ops: string,
  complaints: readonly Complaint[],
  message: string,
): KernelError {
  const [first] = complaints;
  const what = first ? `line ${first.lineNum}: ${first.message}` : message.trim();
  return new KernelError(
    [
      `${step}: the device refused the kernel "${label}": ${what}`,
      ...(first ? excerpt(wgsl, first) : []),
      `ops fused into it: ${ops}`,
      "This is a mistake in the WGSL of one of these ops or of the kernel's family; DEBUG=wgsl prints the whole text.",
    ].join("\n"),
  );
}

/** Most characters of a line that an excerpt shows: generated expressions run to thousands. */
const WIDTH = 160;

/** What is shown of a line around column `at` (from 0), with an ellipsis for what is cut off; `before` is where `at` came to. */
function cut(line: string, at: number): { readonly text: string; readonly before: number } {
  if (line.length <= WIDTH) return { text: line, before: at };
  const from = Math.max(0, Math.min(at - WIDTH / 2, line.length - WIDTH));
  const [left, right] = [from > 0 ? "…" : "", from + WIDTH < line.length ? "…" : ""];
  return { text: left + line.slice(from, from + WIDTH) + right, before: at - from + left.length };
}

/** The line, three before and two after it, numbered, long ones cut, with a mark under the place. */
function excerpt(text: string, { lineNum, linePos, length }: Complaint): string[] {
  const lines = text.split("\n");
  const from = Math.max(1, lineNum - 3);
  return lines.slice(from - 1, lineNum + 2).flatMap((line, i) => {
    const at = from + i;
    const { text: shown, before } = cut(line, at === lineNum && linePos > 0 ? linePos - 1 : 0);
    const numbered = `${at === lineNum ? ">" : " "} ${String(at).padStart(4)} | ${shown}`;
    if (at !== lineNum || linePos < 1) return [numbered];
    const marks = "^".repeat(Math.max(1, Math.min(length, shown.length - before)));
    return [numbered, `       | ${" ".repeat(before)}${marks}`];
  });
}

/** `refused` is why: a limit that was set, or the device's own message. */
export function outOfMemoryError(what: LiveBuffer, refused: string, live: readonly LiveBuffer[]): OutOfMemoryError {
  return new OutOfMemoryError(
    [
      `out of memory: ${what.label} needs ${mebibytes(what.bytes)}, ${refused}`,
      "Use a smaller batch or model, recompute activations instead of keeping them, or keep fewer results.",
      ...listed(live),
    ].join("\n"),
  );
}

export function deviceLostError(reason: string, message: string, live: readonly LiveBuffer[]): DeviceLostError {
  return new DeviceLostError(
    [
      `the device was lost (${reason}): ${message.trim()}`,
      "What only it held is gone: open a new one with openDevice() and load the last checkpoint.",
      ...listed(live),
    ].join("\n"),
  );
}

function listed(live: readonly LiveBuffer[]): string[] {
  if (live.length === 0) return ["No buffers were live."];
  return ["Largest live buffers:", ...live.map((b) => `  ${mebibytes(b.bytes).padStart(14)}  ${b.label}`)];
}
