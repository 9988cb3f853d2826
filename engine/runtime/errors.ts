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

/** The line, three before and two after it, numbered, with a mark under the place. */
function excerpt(text: string, { lineNum, linePos, length }: Complaint): string[] {
  const lines = text.split("\n");
  const from = Math.max(1, lineNum - 3);
  return lines.slice(from - 1, lineNum + 2).flatMap((line, i) => {
    const at = from + i;
    const numbered = `${at === lineNum ? ">" : " "} ${String(at).padStart(4)} | ${line}`;
    if (at !== lineNum || linePos < 1) return [numbered];
    return [numbered, `       | ${" ".repeat(linePos - 1)}${"^".repeat(Math.max(1, length))}`];
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
