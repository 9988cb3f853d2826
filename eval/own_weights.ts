// The folder of networks that train_features.ts has trained: weights, tokenizer, and features.json, which is written last, so
// that a folder that has it is whole.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileSha256 } from "../data/hash.ts";
import { loadTokenizer, saveTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { replaceFile } from "../engine/atomic.ts";
import { load, save } from "../engine/index.ts";
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

export interface OwnWeights {
  readonly video: VideoFeatures;
  readonly quality: VideoFeatures;
  readonly clip: Clip;
  readonly tokenizer: Tokenizer;
  readonly sha256: Readonly<Record<OwnNetwork, string>>;
}

/** Reads them back. Throws one line naming the file that is missing, damaged, or not the one that was written. */
export async function loadOwn(dir: string): Promise<OwnWeights> {
  const path = join(dir, RECORD);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new Error(`${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const r = new ConfigReader(json, path);
  r.only("format", 1);
  const sha256 = {} as Record<OwnNetwork, string>;
  for (const name of OWN_NETWORKS) {
    sha256[name] = await fileSha256(join(dir, file(name)));
    if (sha256[name] !== r.inside("sha256").text(name))
      throw new Error(`${join(dir, file(name))} is not the file that ${RECORD} speaks of; train the features again`);
  }
  const own = {
    video: new VideoFeatures(videoConfig(r.inside("video"))),
    quality: new VideoFeatures(videoConfig(r.inside("quality"))),
    clip: new Clip(ownClipConfig(r.count("vocabulary"))),
  };
  for (const name of OWN_NETWORKS) await load(join(dir, file(name)), own[name].state());
  return { ...own, tokenizer: await loadTokenizer(join(dir, TOKENIZER)), sha256 };
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
