// One door to files of named tensors: safetensors and both containers of torch, told apart by what they begin with, and
// indices of several such files. Who needs only one of them opens it with safetensors.ts or torch/index.ts.

import { SafetensorsError, safetensors } from "./safetensors.ts";
import { fileSource, memorySource, type Source, type TensorStore } from "./source.ts";
import { isIndex, openShards } from "./tensor_shards.ts";
import { torch } from "./torch/index.ts";

/**
 * Opens a safetensors or torch file, or the index of a checkpoint in several of them, and checks it; tensors are read when
 * asked for. Close it afterwards.
 * @throws SafetensorsError, TorchFileError or ShardError, naming the file and what is wrong; the error of the system when it
 * cannot be read
 */
export async function openTensors(path: string): Promise<TensorStore> {
  return isIndex(path) ? openShards(path, openOne) : openOne(path);
}

async function openOne(path: string): Promise<TensorStore> {
  const source = await fileSource(path);
  return tensorFile(source).catch(async (error) => {
    await source.close();
    throw error;
  });
}

/** The same for a file that is in memory already; `label` stands for its path in messages. */
export async function parseTensors(file: Uint8Array, label = "tensors"): Promise<TensorStore> {
  return tensorFile(memorySource(file, label));
}

async function tensorFile(source: Source): Promise<TensorStore> {
  if (await isTorch(source)) return torch(source);
  return safetensors(source).catch((error: Error) => {
    const neither = "neither a zip archive nor a pickle, as torch files are";
    throw TORCH_NAMES.test(source.label) ? new SafetensorsError(`${error.message}; ${neither}`) : error;
  });
}

const TORCH_NAMES = /\.(pt|pth|ckpt|bin|pkl)$/;
const [ZIP, PICKLE, BRACE] = [0x50, 0x80, 0x7b];

/** By the first bytes. A header of safetensors can begin like a zip or a pickle by chance, but has a brace after its length. */
async function isTorch(source: Source): Promise<boolean> {
  const head = new Uint8Array(await source.bytes(0, Math.min(9, source.size)));
  if (head[8] === BRACE && !(head[0] === ZIP && head[1] === 0x4b)) return false;
  if (head[0] === ZIP && head[1] === 0x4b) return true;
  return head[0] === PICKLE || TORCH_NAMES.test(source.label);
}
