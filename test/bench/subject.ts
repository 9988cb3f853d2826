// The contract between the measuring child process and a framework: how a framework is opened, and what it must give for
// each workload. gifgrad/ and peers/ implement it; child.ts drives it.

/** What a framework is and runs on, for the record. */
export interface Opened {
  readonly version: string;
  readonly adapter: string;
}

/** What a replayed step costs the host, and what it leaves behind. */
export interface HostCost {
  readonly dispatches: number;
  /** Feeding and encoding one call: the median and the least, in milliseconds. */
  readonly encodeMs: number;
  readonly encodeMinMs: number;
  /** What the queue takes to accept it, the median. */
  readonly submitMs: number;
  /** WebGPU's calls for as many dispatches with nothing around them, the median: what no host code can go below. */
  readonly bareMs: number;
  /** Device memory after so many calls beside before them, in bytes. */
  readonly calls: number;
  readonly grownBytes: number;
}

/** The planned memory of a step's intermediate values, and the least that any arrangement needs: what is live at once. */
export interface ArenaSize {
  readonly bytes: number;
  readonly least: number;
}

/** One workload, with its inputs and weights on the device. */
export interface Subject {
  /** One execution, finished by waiting for the device; a train step resolves to the loss, read back. */
  run(): Promise<number | undefined>;
  /** Results of the last execution in the workload's own layout; absent for train steps, whose losses are the result. */
  outputs?(): Promise<Readonly<Record<string, ArrayLike<number>>>>;
  /** Where the time goes, kernel by kernel, as text. */
  profile?(): Promise<string>;
  /** The plan, as text. */
  explain?(): string;
  arena?(): ArenaSize;
  host?(): Promise<HostCost>;
}

export interface Framework {
  open(): Promise<Opened>;
  /** By workload; a string says why there is none. */
  readonly workloads: Readonly<Record<string, (() => Promise<Subject> | Subject) | string>>;
}
