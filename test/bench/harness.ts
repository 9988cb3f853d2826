// Measures: starts one process per framework and workload, lets the processes of a workload take turns, so that whatever
// else the machine does falls on all of them alike, and collects what they report. Called by main.ts.

import { type ChildProcess, fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Answer, Order } from "./child.ts";
import { GIFGRAD, type Result } from "./results.ts";
import type { Workload } from "./workloads.ts";

export interface Plan {
  readonly workloads: readonly Workload[];
  readonly frameworks: readonly string[];
  readonly runs: number;
  /** Seconds for any one order. */
  readonly timeout: number;
  readonly cold: boolean;
  readonly profile: boolean;
  readonly explain: boolean;
  /** The built child.ts. */
  readonly child: string;
  /** ref.json, whether it exists or not. */
  readonly ref: string;
  /** Progress and profiles, for people. */
  say(text: string): void;
  /** Called after each workload with everything measured so far. */
  done(measured: Measured): void;
}

/** What was measured, and on what. */
export interface Measured {
  readonly results: Result[];
  readonly versions: Record<string, string>;
  readonly adapters: Record<string, string>;
}

/** A framework stops being repeated when its timed executions of one workload took this long together. */
const ENOUGH_MS = 30_000;

/** One child process: orders go in one at a time, and each is answered or the process is ended. */
class Child {
  readonly #process: ChildProcess;
  #stderr = "";
  #settle: ((answer: Answer) => void) | undefined;
  #ended = false;

  constructor(file: string, env: NodeJS.ProcessEnv) {
    this.#process = fork(file, [], { env, silent: true, execArgv: [] });
    this.#process.stdout?.resume();
    this.#process.stderr?.on("data", (text) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-2000);
    });
    this.#process.on("message", (answer) => this.#answer(answer as Answer));
    this.#process.on("exit", (code, signal) => {
      this.#ended = true;
      this.#answer({ error: `the process ended (${signal ?? `exit code ${code}`}) ${this.#stderr}` });
    });
  }

  #answer(answer: Answer): void {
    this.#settle?.(answer);
    this.#settle = undefined;
  }

  /** Throws an Error when the child reports one, ends, or takes longer than `seconds`. */
  async ask(order: Order, seconds: number): Promise<Answer> {
    if (this.#ended) throw new Error("the process has ended");
    let timer: NodeJS.Timeout | undefined;
    const answer = await new Promise<Answer>((resolve) => {
      this.#settle = resolve;
      timer = setTimeout(() => {
        this.end();
        resolve({ error: `${order.do} took longer than ${seconds} s` });
      }, seconds * 1000);
      this.#process.send(order);
    });
    clearTimeout(timer);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer;
  }

  end(): void {
    this.#settle = undefined;
    this.#process.kill("SIGKILL"); // drivers may hang while they unload
  }
}

/** One framework on one workload while it is being measured. */
class Subject {
  readonly workload: Workload;
  readonly framework: string;
  readonly #plan: Plan;
  readonly #child: Child;
  readonly #walls: number[] = [];
  readonly #cpus: number[] = [];
  #fields: Partial<Result> = {};
  opened: Answer = {};

  constructor(plan: Plan, workload: Workload, framework: string, cache: string | undefined) {
    this.workload = workload;
    this.framework = framework;
    this.#plan = plan;
    this.#child = new Child(plan.child, cache ? { ...process.env, MESA_SHADER_CACHE_DIR: cache } : process.env);
  }

  get live(): boolean {
    return this.#fields.failed === undefined;
  }

  /** Whether another execution would tell more than it costs. */
  get wanted(): boolean {
    const spent = this.#walls.reduce((a, b) => a + b, 0);
    return this.live && this.#walls.length < this.#plan.runs && spent < ENOUGH_MS;
  }

  /** Runs one stage unless an earlier one failed; a failure becomes part of the result. */
  async #stage(name: string, body: () => Promise<Partial<Result>>): Promise<void> {
    if (!this.live) return;
    try {
      this.#fields = { ...this.#fields, ...(await body()) };
    } catch (e) {
      this.#fields = { ...this.#fields, failed: `${name}: ${(e as Error).message.trim()}` };
      this.#child.end();
    }
  }

  async #ask(order: Order, seconds = this.#plan.timeout): Promise<Answer> {
    return await this.#child.ask(order, seconds);
  }

  async open(cache: "empty" | "kept"): Promise<void> {
    await this.#stage("open", async () => {
      const open: Order = { do: "open", framework: this.framework, workload: this.workload.id };
      this.opened = await this.#ask(open);
      if (this.opened.cannot !== undefined) return { failed: this.opened.cannot };
      return { initMs: this.opened.initMs };
    });
    await this.#stage("first execution", async () => {
      const { wallMs, cpuMs } = await this.#ask({ do: "run" });
      return { coldMs: wallMs, coldCpuMs: cpuMs, cache };
    });
  }

  async execute(): Promise<void> {
    await this.#stage("execution", async () => {
      const { wallMs, cpuMs } = await this.#ask({ do: "run" });
      this.#walls.push(wallMs as number);
      this.#cpus.push(cpuMs as number);
      return {};
    });
  }

  /** Everything that is not timed, and the end of the process. */
  async finish(): Promise<void> {
    const { plan, say } = { plan: this.#plan, say: this.#plan.say };
    await this.#stage("check", async () => {
      const seconds = plan.timeout / 2;
      return { errors: (await this.#ask({ do: "check", ref: plan.ref, seconds }, 2 * plan.timeout)).errors };
    });
    await this.#stage("cost", async () => {
      const { arena, host } = await this.#ask({ do: "cost" });
      return { ...(arena ? { arena } : {}), ...(host ? { host } : {}) };
    });
    for (const tool of ["profile", "explain"] as const)
      await this.#stage(tool, async () => {
        if (plan[tool] && this.framework === GIFGRAD) say((await this.#ask({ do: tool })).text as string);
        return {};
      });
    await this.#stage("end", async () => ({ rssMb: (await this.#ask({ do: "end" })).rssMb }));
    this.#child.end();
  }

  result(): Result {
    const { workload, framework } = this;
    const walls = this.#walls.toSorted((a, b) => a - b);
    const runs = walls.length;
    if (runs === 0) return { workload: workload.id, framework, runs, ...this.#fields };
    const timings = {
      cpuMs: Math.min(...this.#cpus),
      minMs: walls[0],
      medMs: (walls[(runs - 1) >> 1] + walls[runs >> 1]) / 2,
      gflops: workload.flops / walls[0] / 1e6,
    };
    return { workload: workload.id, framework, runs, ...timings, ...this.#fields };
  }
}

/** First execution in a process of its own, with the driver cache in `cache` as another process left it. */
async function warmStart(plan: Plan, workload: Workload, framework: string, cache: string): Promise<Partial<Result>> {
  const subject = new Subject({ ...plan, profile: false, explain: false }, workload, framework, cache);
  await subject.open("kept");
  await subject.finish();
  const { coldMs, coldCpuMs } = subject.result();
  return { warmMs: coldMs, warmCpuMs: coldCpuMs };
}

async function measureWorkload(plan: Plan, workload: Workload, measured: Measured): Promise<void> {
  const frameworks = workload.kind === "host" ? [GIFGRAD] : plan.frameworks;
  const caches = frameworks.map(() => (plan.cold ? mkdtempSync(join(tmpdir(), "gifgrad-bench-")) : undefined));
  const subjects: Subject[] = [];
  for (const [i, framework] of frameworks.entries()) {
    const subject = new Subject(plan, workload, framework, caches[i]);
    subjects.push(subject);
    await subject.open(caches[i] ? "empty" : "kept");
  }
  while (subjects.some((s) => s.wanted)) for (const s of subjects) if (s.wanted) await s.execute();
  for (const [i, subject] of subjects.entries()) {
    await subject.finish();
    const cache = caches[i];
    const warm = cache && subject.live ? await warmStart(plan, workload, subject.framework, cache) : {};
    if (cache) rmSync(cache, { recursive: true, force: true });
    const result = { ...subject.result(), ...warm };
    measured.results.push(result);
    if (subject.opened.version) measured.versions[subject.framework] = subject.opened.version;
    if (subject.opened.adapter) measured.adapters[subject.framework] = subject.opened.adapter;
    const outcome = result.failed?.split("\n")[0] ?? `${result.cpuMs?.toFixed(1)} CPU ms`;
    plan.say(`${workload.id} ${subject.framework}: ${outcome}`);
  }
}

/** Measures every framework on every workload. A framework that fails on one is named with the reason and goes on with the next. */
export async function measure(plan: Plan): Promise<Measured> {
  const measured: Measured = { results: [], versions: {}, adapters: {} };
  for (const workload of plan.workloads) {
    await measureWorkload(plan, workload, measured);
    plan.done(measured);
  }
  return measured;
}
