// The engine's public surface: re-exports and nothing else. The last lines are for ops and kernels of one's own.

export * as kernels from "../kernels/wgsl.ts";
export { grad, hvp, valueAndGrad, vjp } from "./autograd.ts";
export { joinState, LoadError, type LoadOptions, load, type SaveOptions, save } from "./checkpoint.ts";
export { type CompileOptions, compile, type Feed, type Named, type Step } from "./compile.ts";
export { type Cotangents, checkpoint, customVjp, type Results } from "./custom.ts";
export {
  type Device,
  type DeviceOptions,
  device,
  type KernelTime,
  type MemoryStats,
  openDevice,
  type Tracing,
  useDevice,
} from "./device.ts";
export { type Data, type DType, packHalf, unpackHalf } from "./dtype.ts";
export { einsum } from "./einsum.ts";
export {
  DeviceError,
  DeviceLostError,
  DTypeError,
  KernelError,
  OutOfMemoryError,
  ShapeError,
  StaleTensorError,
} from "./error.ts";
export {
  type Attrs,
  type CompositeDef,
  contiguous,
  defineComposite,
  defineOp,
  familyReference,
  floats,
  type KernelLowering,
  type Law,
  type Lowering,
  type OpDef,
  type Sample,
} from "./ops/op.ts";
export { formatProfile } from "./runtime/profile.ts";
export { SafetensorsError } from "./safetensors.ts";
export { type SelfCheck, selfCheck } from "./selfcheck.ts";
export type { Shape } from "./shape.ts";
export type { TensorFile, TensorStore } from "./source.ts";
export { bitsFrom, Parameter, Rng } from "./state.ts";
export {
  apply,
  type ConvOptions,
  type ConvTransposeOptions,
  full,
  ones,
  type Padding,
  Tensor,
  tensor,
  zeros,
} from "./tensor.ts";
export { openTensors, parseTensors } from "./tensor_file.ts";
export { ShardError } from "./tensor_shards.ts";
export { TorchFileError } from "./torch/index.ts";
