// The folder of networks that train_features.ts has trained: weights, tokenizer, and features.json, which is written last, so
// that a folder that has it is whole.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileSha256 } from "../data/hash.ts";
import { parseJson } from "../data/json_config.ts";
import { loadTokenizer, saveTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { replaceFile } from "../engine/atomic.ts";
import { load, save } from "../engine/index.ts";
import type { Module } from "../engine/nn/index.ts";
import { ConfigReader } from "../models/checkpoints/reader.ts";
import { Clip } from "../models/clip.ts";
import { VideoFeatures, type VideoFeaturesConfig } from "../models/video_features.ts";
import { OWN_NETWORKS, type OwnNetwork, type OwnNetworks, ownClipConfig } from "./train_features.ts";

const RECORD = "features.json";
const TOKENIZER = "tokenizer.json";
const file = (name: OwnNetwork): string => `${name}.safetensors`;

export function holdsOwn(dir: string): boolean {
  return existsSync(join(dir, RECORD));
}

/** Writes the networks. `about` says what they were trained on and how. */
export async function saveOwn(
  dir: string,
  own: OwnNetworks,
  about: Readonly<Record<string, string | number>>,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  for (const name of OWN_NETWORKS) await save(join(dir, file(name)), own[name].state());
  await saveTokenizer(own.tokenizer, join(dir, TOKENIZER));
  const hashes = Object.fromEntries(
    await Promise.all(OWN_NETWORKS.map(async (name) => [name, await fileSha256(join(dir, file(name)))])),
  );
  const { video, quality, tokenizer, losses } = own;
  const record = {
    format: 1,
    ...about,
    video: video.config,
    quality: quality.config,
    vocabulary: tokenizer.vocabSize,
    losses,
    sha256: hashes,
  };
  await replaceFile(join(dir, RECORD), (f) => f.writeFile(`${JSON.stringify(record, null, 2)}\n`));
}

/** A network that was kept, and the hash of its file. */
export interface Kept<Network> {
  readonly model: Network;
  readonly sha256: string;
}

/** Reads the networks one by one, so that a damaged file costs no other. Each throws one line naming what is wrong. */
export interface OwnFolder {
  video(): Promise<Kept<VideoFeatures>>;
  quality(): Promise<Kept<VideoFeatures>>;
  clip(): Promise<Kept<Clip> & { readonly tokenizer: Tokenizer }>;
}

/** Reads what is said of them. Throws one line where that is damaged. */
export async function openOwn(dir: string): Promise<OwnFolder> {
  const path = join(dir, RECORD);
  const r = new ConfigReader(parseJson(await readFile(path, "utf8"), path), path);
  r.only("format", 1);
  const kept = async <Network extends Module>(name: OwnNetwork, make: () => Network): Promise<Kept<Network>> => {
    const sha256 = await fileSha256(join(dir, file(name)));
    if (sha256 !== r.inside("sha256").text(name))
      throw new Error(`${join(dir, file(name))} is not the file that ${RECORD} speaks of; train the features again`);
    const model = make();
    await load(join(dir, file(name)), model.state());
    return { model, sha256 };
  };
  return {
    video: () => kept("video", () => new VideoFeatures(videoConfig(r.inside("video")))),
    quality: () => kept("quality", () => new VideoFeatures(videoConfig(r.inside("quality")))),
    clip: async () => ({
      ...(await kept("clip", () => new Clip(ownClipConfig(r.count("vocabulary"))))),
      tokenizer: await loadTokenizer(join(dir, TOKENIZER)),
    }),
  };
}

function videoConfig(r: ConfigReader): VideoFeaturesConfig {
  return {
    size: r.count("size"),
    frames: r.count("frames"),
    width: r.count("width"),
    features: r.count("features"),
    outputs: r.count("outputs"),
  };
}
