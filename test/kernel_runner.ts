// The bare device of the kernel tests: Dawn without the engine, null where there is no adapter.

import { type Dawn, openDawn } from "../engine/runtime/dawn.ts";

export { type Machine as BareDevice, type Prepared, prepare, type Values } from "../engine/testing/runner.ts";

export async function openBare(backend?: "null"): Promise<Dawn | null> {
  return openDawn(backend ? { backend } : {}).catch(() => null);
}
