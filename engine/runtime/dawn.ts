// The only engine file that imports "webgpu" (Dawn). Opens an adapter and a device with everything the adapter offers, and
// describes it as Caps.

import { create, globals } from "webgpu";
import type { Caps, MatrixShape } from "../../kernels/wgsl.ts";
import { env } from "../env.ts";
import { DeviceError } from "../error.ts";

Object.assign(globalThis, globals);

export interface Dawn {
  readonly device: GPUDevice;
  readonly adapterName: string;
  /** True for a software rasteriser: it computes correctly, and far slower than a GPU. */
  readonly software: boolean;
  readonly caps: Caps;
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  /** Another device, where it helps to compile kernels: see assistant.ts. */
  readonly another?: () => Promise<GPUDevice>;
  /** Lets the process end. */
  release(): void;
}

const FEATURES = ["subgroups", "shader-f16", "timestamp-query", "chromium-experimental-subgroup-matrix"];
const LIMITS = [
  "maxStorageBuffersPerShaderStage",
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
  "minStorageBufferOffsetAlignment",
] as const;

export interface DawnOptions {
  /** "null" type-checks shaders and executes nothing: it exists on every machine. */
  readonly backend?: "null";
  /** Ask for nothing beyond what every WebGPU adapter has: 8 bindings, 256 invocations, no subgroups, no f16. */
  readonly minimum?: boolean;
}

/** Dawn's description of a matrix product in hardware. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The shapes of floats; integer ones are left out. */
function matrixShape({ componentType, resultComponentType, M, N, K }: MatrixConfig): MatrixShape[] {
  const [input, result] = [componentType, resultComponentType].map((t) => (t === "f16" || t === "f32" ? t : null));
  return input && result ? [{ m: M, n: N, k: K, input, result }] : [];
}

/**
 * What create() made, by back end, for as long as the process lives. Its binding asks Dawn for news in every turn of the event
 * loop while any promise is open, a kernel that is being compiled for a device closed by now among them, and does not keep
 * alive what it asks: were this collected in the meantime, the process would die.
 */
const instances = new Map<string, ReturnType<typeof create>>();

function instanceOf(backend: string): ReturnType<typeof create> {
  const known = instances.get(backend);
  if (known) return known;
  const made = create([
    "disable-dawn-features=timestamp_quantization", // timestamps in 0.1 ms steps are for pages that are not trusted
    "enable-dawn-features=allow_unsafe_apis", // subgroup matrices are experimental
    ...(backend ? [`backend=${backend}`] : []),
  ]);
  instances.set(backend, made);
  return made;
}

/** Throws DeviceError when there is no adapter. */
export async function openDawn(options: DawnOptions = {}): Promise<Dawn> {
  env.XDG_RUNTIME_DIR ||= "/tmp"; // lavapipe warns without one
  const gpu = instanceOf(options.backend ?? "");
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new DeviceError("no WebGPU adapter found: run `npx gifgrad doctor` to see what is missing");
  const features = options.minimum ? [] : FEATURES.filter((f) => adapter.features.has(f));
  const wanted: GPUDeviceDescriptor = {
    requiredFeatures: features as GPUFeatureName[],
    requiredLimits: options.minimum ? {} : Object.fromEntries(LIMITS.map((l) => [l, adapter.limits[l]])),
  };
  const device = await adapter.requestDevice(wanted);
  const another = async (): Promise<GPUDevice> => {
    const same = await gpu.requestAdapter({ powerPreference: "high-performance" }); // an adapter gives one device
    if (!same) throw new DeviceError("the adapter is gone");
    return await same.requestDevice(wanted);
  };
  const limits = Object.fromEntries(LIMITS.map((l) => [l, device.limits[l]]));
  const info = adapter.info as GPUAdapterInfo & {
    readonly subgroupMinSize?: number;
    readonly subgroupMaxSize?: number;
    readonly subgroupMatrixConfigs?: readonly MatrixConfig[];
  };
  const text = [info.vendor, info.architecture, info.device, info.description].join(" ");
  const software =
    info.isFallbackAdapter === true || /llvmpipe|lavapipe|swiftshader|software|basic render|\bcpu\b/i.test(text);
  const fixed = features.includes("subgroups") && info.subgroupMinSize === info.subgroupMaxSize;
  return {
    device,
    adapterName: info.description || info.device || text.trim(),
    software,
    features,
    limits,
    caps: {
      adapter: software ? "cpu" : "gpu",
      subgroupSize: fixed ? (info.subgroupMaxSize ?? 0) : 0,
      subgroupIds: gpu.wgslLanguageFeatures?.has("subgroup_id") ?? false,
      f16: features.includes("shader-f16"),
      maxBindings: limits.maxStorageBuffersPerShaderStage,
      maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
      maxWorkgroupMemory: limits.maxComputeWorkgroupStorageSize,
      maxWorkgroupsPerDim: limits.maxComputeWorkgroupsPerDimension,
      maxBinding: limits.maxStorageBufferBindingSize,
      maxBuffer: limits.maxBufferSize,
      matrices: features.includes("chromium-experimental-subgroup-matrix")
        ? (info.subgroupMatrixConfigs ?? []).flatMap(matrixShape)
        : [],
    },
    ...(/llvmpipe/i.test(text) && !env.MESA_SHADER_CACHE_DISABLE ? { another } : {}),
    release: () => device.destroy(),
  };
}
