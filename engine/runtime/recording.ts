// A plan made ready to be replayed: its buffers, its pipelines and its bind groups, all made once. gpu.ts records a program at
// its first call and encodes the recording at every call.

import { opsOf } from "../plan/explain.ts";
import type { Dispatch, Place, Plan } from "../plan/plan.ts";
import { uniformBytes } from "../plan/summary.ts";
import type { Pipelines } from "./pipelines.ts";
import type { Pool } from "./pool.ts";
import type { Residents } from "./residents.ts";

export interface Memory {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** One recorded dispatch: everything needed to replay it. */
export interface Recorded {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

/** The memory of a plan, besides storages. */
interface Where {
  readonly plan: Plan;
  /** The arena's slabs. */
  readonly arena: readonly GPUBuffer[];
  readonly constants: readonly GPUBuffer[];
  readonly inputs: ReadonlyMap<string, GPUBuffer>;
}

/** Memory for the results of one call, by name, and the dispatches that write there. */
export interface ResultSet {
  readonly results: ReadonlyMap<string, GPUBuffer>;
  readonly dispatches: readonly Recorded[];
}

export interface Recording extends Where {
  readonly uniforms: GPUBuffer | null;
  /** Dispatches that run once, before the first call: they fill tables. */
  readonly setup: readonly Recorded[];
  /** Two for a program that is run again, used in turn: a step may be fed its own last results. */
  readonly sets: readonly ResultSet[];
  calls: number;
}

export class Recorder {
  readonly #device: GPUDevice;
  readonly #pool: Pool;
  readonly #pipelines: Pipelines;
  readonly #residents: Residents;

  constructor(device: GPUDevice, pool: Pool, pipelines: Pipelines, residents: Residents) {
    this.#device = device;
    this.#pool = pool;
    this.#pipelines = pipelines;
    this.#residents = residents;
  }

  /** With memory for so many `sets` of results. What it took goes back to the pool when it throws. */
  record(plan: Plan, sets: number): Recording {
    const taken: GPUBuffer[] = [];
    try {
      return this.#record(plan, sets, taken);
    } catch (e) {
      for (const b of taken) this.#pool.release(b); // out of memory half way
      throw e;
    }
  }

  /** Every buffer that it takes from the pool is put into `taken` as well. */
  #record(plan: Plan, sets: number, taken: GPUBuffer[]): Recording {
    const take = (bytes: number, what: string): GPUBuffer => {
      const buffer = this.#pool.take(bytes, `${what} of ${plan.name}`);
      taken.push(buffer);
      return buffer;
    };
    const arena = slabsOf(plan.arena).map((bytes) => take(bytes, "arena"));
    const inputs = new Map(plan.inputs.map((i) => [i.name, take(i.bytes, `input ${i.name}`)]));
    const constants = plan.setup.map((d) => take((d.places[0] as { bytes: number }).bytes, "table"));
    const memory = { plan, arena, constants, inputs };
    const all = [...plan.setup, ...plan.dispatches];
    const { buffer: uniforms, offsets } = this.#uniforms(plan.name, all);
    if (uniforms) taken.push(uniforms);
    const made: Recorded[][] = [];
    const results = Array.from(
      { length: sets },
      () => new Map(plan.outputs.map((o) => [o.name, take(o.bytes, `result ${o.name}`)])),
    );
    for (const set of results) {
      const range = (p: Place): GPUBufferBinding => {
        const { buffer, offset } = this.memoryOf(memory, set, p);
        return { buffer, offset, size: p.bytes }; // the buffer may be larger
      };
      const record = (d: Dispatch, i: number): Recorded =>
        made.length > 0 && !d.places.some((p) => p.kind === "result")
          ? made[0][i]
          : this.#dispatch(d, plan, d.places.map(range), uniforms, offsets[i]);
      made.push(all.map(record));
    }
    const first = plan.setup.length;
    const written = results.map((set, i) => ({ results: set, dispatches: made[i].slice(first) }));
    return { ...memory, uniforms, setup: made[0].slice(0, first), sets: written, calls: 0 };
  }

  #dispatch(
    { source, groups }: Dispatch,
    plan: Plan,
    places: readonly GPUBufferBinding[],
    uniforms: GPUBuffer | null,
    offset: number,
  ): Recorded {
    const entries: GPUBindGroupEntry[] = places.map((resource, binding) => ({ binding, resource }));
    if (source.uniforms.length > 0) {
      entries.push({
        binding: places.length,
        resource: { buffer: uniforms as GPUBuffer, offset, size: Math.ceil(source.uniforms.length / 4) * 16 },
      });
    }
    const pipeline = this.#pipelines.get(source, places.length, { step: plan.name, ops: () => opsOf(groups, plan) });
    const [x, y, z] = source.workgroups;
    return {
      pipeline,
      group: this.#device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }),
      x,
      y,
      z,
    };
  }

  /** The scalars of all dispatches in one buffer, written once: they are constants of the recording. */
  #uniforms(name: string, dispatches: Plan["dispatches"]): { buffer: GPUBuffer | null; offsets: number[] } {
    let bytes = 0;
    const offsets = dispatches.map(({ source }) => {
      const at = bytes;
      bytes += uniformBytes([source]);
      return at;
    });
    if (bytes === 0) return { buffer: null, offsets };
    const words = new Uint32Array(bytes / 4);
    dispatches.forEach(({ source }, i) => {
      words.set(source.uniforms, offsets[i] / 4);
    });
    const buffer = this.#pool.take(bytes, `uniforms of ${name}`, "scalars");
    this.#device.queue.writeBuffer(buffer, 0, words);
    return { buffer, offsets };
  }

  memoryOf({ plan, arena, constants, inputs }: Where, results: ReadonlyMap<string, GPUBuffer>, place: Place): Memory {
    if (place.kind === "arena") {
      const { offsets, slab } = plan.arena;
      const at = offsets[place.index];
      const i = Math.floor(at / slab);
      return { buffer: arena[i], offset: i === 0 ? at : at - i * slab };
    }
    if (place.kind === "constant") return { buffer: constants[place.index], offset: 0 };
    if (place.kind === "result") return { buffer: results.get(place.name) as GPUBuffer, offset: 0 };
    return {
      buffer: place.kind === "input" ? (inputs.get(place.name) as GPUBuffer) : this.#residents.use(place.storage),
      offset: 0,
    };
  }

  /** Keeps a recording for as long as its program lives; afterwards its memory goes back to the pool. */
  follow(program: object, recording: Recording): void {
    for (const buffer of buffersOf(recording)) this.#pool.follow(program, buffer);
    // Results outlive the program as long as one of them is held: each keeps its recording.
    for (const buffer of resultsOf(recording)) this.#pool.follow(recording, buffer);
  }

  /** `results`: they were not given to a caller. */
  discard(recording: Recording, results: boolean): void {
    for (const buffer of [...buffersOf(recording), ...(results ? resultsOf(recording) : [])])
      this.#pool.release(buffer);
  }
}

function resultsOf({ sets }: Recording): GPUBuffer[] {
  return sets.flatMap((s) => [...s.results.values()]);
}

/** Everything a recording took from the pool, besides its results. */
function buffersOf({ arena, constants, inputs, uniforms }: Recording): GPUBuffer[] {
  return [...arena, ...constants, ...inputs.values(), ...(uniforms ? [uniforms] : [])];
}

/** Sizes of the buffers that make up an arena. */
function slabsOf({ bytes, slab }: Plan["arena"]): number[] {
  const full = Math.floor(bytes / slab);
  const rest = full > 0 ? bytes - full * slab : bytes;
  return [...Array.from({ length: full }, () => slab), ...(rest > 0 ? [rest] : [])];
}
