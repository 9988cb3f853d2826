// The GPU device of the tests, opened once per process, and `onGpu`, which skips aloud where there is no adapter. Software
// adapters count: kernels compute the same there.

import { test } from "vitest";
import { type Device, useDevice } from "../engine/device.ts";
import { env } from "../engine/env.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { type GpuDevice, type GpuOptions, openGpu } from "../engine/runtime/gpu.ts";

/**
 * `CAPS=minimum npm test -- ops compile`: the same tests on a device at WebGPU's guaranteed limits (8 bindings, 256
 * invocations, 16 KiB of workgroup memory), without subgroups and f16, with the kernels of a GPU; `CAPS=portable` with
 * those of a software adapter; `CAPS=folded` with grids of 7 workgroups a row.
 */
export const REDUCED: Readonly<Record<string, GpuOptions>> = {
  minimum: { minimum: true, caps: { adapter: "gpu" } },
  portable: { minimum: true, caps: { adapter: "cpu" } },
  folded: { minimum: true, caps: { maxWorkgroupsPerDim: 7 } },
};

function options(): GpuOptions {
  const { CAPS } = env;
  if (CAPS && !(CAPS in REDUCED)) throw new Error(`CAPS=${CAPS}: one of ${Object.keys(REDUCED).join(", ")}`);
  return CAPS ? REDUCED[CAPS] : {};
}

let opening: Promise<GpuDevice | null> | undefined;

/** The device, or null when no adapter is found. Makes it the current one. */
export async function gpu(): Promise<GpuDevice | null> {
  opening ??= openGpu(options()).catch((e: Error) => {
    console.error(`GPU tests are skipped: ${e.message}`);
    return null;
  });
  const opened = await opening;
  if (opened) useDevice(opened);
  return opened;
}

/** A test that needs an adapter, run with the device current. */
export function onGpu(name: string, body: (device: GpuDevice) => Promise<void>): void {
  test(name, async (context) => {
    const opened = await gpu();
    if (!opened) return context.skip("no WebGPU adapter");
    await body(opened);
    await opened.settle();
  });
}

/** A test in float64, on one reference device per test file. */
export function onReference(name: string, body: () => Promise<void>): void {
  test(name, async () => {
    useDevice(reference);
    await body();
  });
}

const reference = new ReferenceDevice();

/** A law of programs that must hold on the reference and on the GPU. */
export function onEach(name: string, body: (device: Device) => Promise<void>): void {
  test(`${name} (reference)`, async () => {
    await body(useDevice(new ReferenceDevice()));
  });
  onGpu(`${name} (gpu)`, body);
}
