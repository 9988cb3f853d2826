// Stands in for the package webgpu (Dawn) in a browser, which has WebGPU of its own: package.json's field "browser" puts this
// file in its place when a bundler builds for that platform. Same exports, as far as runtime/dawn.ts uses them.

/** The constants (GPUBufferUsage, ...) that a browser has defined already. */
export const globals = {};

/** The page's WebGPU. Where there is none, an object that finds no adapter; nor does a browser have Dawn's null back end. */
export function create(options: readonly string[]): Pick<GPU, "requestAdapter"> {
  const { navigator } = globalThis as { readonly navigator?: { readonly gpu?: GPU } };
  const gpu = navigator?.gpu;
  return gpu && !options.includes("backend=null") ? gpu : { requestAdapter: async () => null };
}
