// Stands in for the package webgpu (Dawn) in a browser, which has WebGPU of its own: package.json's field "browser" puts this
// file in its place when a bundler builds for that platform. Same exports, as far as runtime/dawn.ts uses them.

/** The constants (GPUBufferUsage, ...) that a browser has defined already. */
export const globals = {};

/**
 * The page's WebGPU, or an object that finds no adapter. Also in place of Dawn's null back end, which a browser does not have:
 * that one is asked to type-check shaders only, and every device does so.
 */
export function create(_options: readonly string[]): Pick<GPU, "requestAdapter"> & Partial<GPU> {
  const { navigator } = globalThis as { readonly navigator?: { readonly gpu?: GPU } };
  return navigator?.gpu ?? { requestAdapter: async () => null };
}
