// Where the training of the small networks stands, so that a killed one goes on to the same bits: a file per network with its weights,
// the optimiser's moments, the step, how many numbers were drawn, and the losses. Deleted when the networks are written. Used by
// train_features.ts.

import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { load, type Parameter, save } from "../engine/index.ts";

/** How far a network is. */
export interface Position {
  readonly step: number;
  /** Numbers that its feed has drawn. */
  readonly drawn: number;
  /** Of every step. */
  readonly losses: readonly number[];
}

export const START: Position = { step: 0, drawn: 0, losses: [] };

/** All that determines a training besides its networks' names. */
export type Settings = Readonly<Record<string, string | number>>;

const file = (network: string): string => `${network}.unfinished.safetensors`;

export function holdsUnfinished(dir: string, networks: readonly string[]): boolean {
  return networks.some((network) => existsSync(join(dir, file(network))));
}

/** The positions of one training in its folder. */
export class OwnCheckpoints {
  readonly #dir: string;
  readonly #settings: Settings;

  constructor(dir: string, settings: Settings) {
    this.#dir = dir;
    this.#settings = settings;
  }

  /** Replaces what is there as a whole. */
  async save(network: string, state: ReadonlyMap<string, Parameter>, position: Position): Promise<void> {
    await mkdir(this.#dir, { recursive: true });
    await save(join(this.#dir, file(network)), state, {
      settings: JSON.stringify(this.#settings),
      position: JSON.stringify(position),
    });
  }

  /**
   * Loads where the network was left; the start where there is nothing.
   * @throws Error when it was left by a training with other settings, naming the first that differs
   */
  async restore(network: string, state: ReadonlyMap<string, Parameter>): Promise<Position> {
    const path = join(this.#dir, file(network));
    if (!existsSync(path)) return START;
    const { settings = "{}", position = "null" } = await load(path, new Map(), { partial: true });
    const theirs = JSON.parse(settings) as Settings;
    const other = Object.keys(this.#settings).find((key) => theirs[key] !== this.#settings[key]);
    if (other !== undefined)
      throw new Error(
        `${path} is of a training with ${other} ${theirs[other]}, not ${this.#settings[other]}: give the same data and options, or another folder`,
      );
    await load(path, state);
    return JSON.parse(position) as Position;
  }

  async clear(networks: readonly string[]): Promise<void> {
    for (const network of networks) await rm(join(this.#dir, file(network)), { force: true });
  }
}
