// Golden kind "clip-preprocess": pictures resized by Pillow and normalised for CLIP. Bytes must be equal; normalised values
// are a subtraction and a division away from them.

import { type ClipPreprocess, clipPreprocess, type Picture, resizeShorter } from "../../data/clip_preprocess.ts";
import { channelsLast } from "./axes.ts";
import { exists, peekJson, readJson, readTensors, type Stored } from "./files.ts";
import { broken, type Check, compare, type Kind, TWO_ULPS } from "./kind.ts";

interface Config {
  readonly size: number;
  readonly crop: number;
  readonly resample: string;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

export const clipPreprocessing: Kind = {
  name: "clip-preprocess",
  recognises: async (folder) => {
    const config = (await peekJson(folder, "config.json")) as Partial<Config> | null;
    return typeof config?.crop === "number" && Array.isArray(config.mean) && (await exists(folder, "io.safetensors"));
  },
  run,
};

async function* run(folder: string): AsyncGenerator<Check> {
  const config = await readJson<Config>(folder, "config.json");
  if (config.resample !== "bicubic" && config.resample !== "bilinear")
    throw new Error(`config.json: resample is "${config.resample}": only "bicubic" or "bilinear" is supported`);
  const options: ClipPreprocess = { ...config, filter: config.resample };
  const io = await readTensors(folder, "io.safetensors");
  for (const [name, want] of io) {
    const [, id, what] = /^out\.(.+)\.(\w+)$/.exec(name) ?? [];
    const input = io.get(`in.${id}`);
    if (name.startsWith("in.")) continue;
    yield input ? check(name, what, picture(input), options, want) : broken(name, "nothing here computes it");
  }
}

function check(name: string, what: string, input: Picture, o: ClipPreprocess, want: Stored): Check {
  const resized = (filter: ClipPreprocess["filter"]): Check => {
    const { width, height, rgb } = resizeShorter(input, o.size, filter);
    const shape = [height, width, 3].join();
    return shape === want.shape.join()
      ? compare(name, rgb, want.data, 0)
      : broken(name, `has the shape [${shape}], expected [${want.shape}]`);
  };
  if (what === "resized") return resized(o.filter);
  if (what === "bilinear_resized") return resized("bilinear");
  if (what === "pixel_values") return compare(name, clipPreprocess(input, o), channelsLast(want, 0).data, TWO_ULPS);
  return broken(name, "nothing here computes it");
}

function picture({ shape, data }: Stored): Picture {
  return { height: shape[0], width: shape[1], rgb: Uint8Array.from(data) };
}
