// Runs in the page: test files, one after another, by vitest's own runner. run.ts calls `runTests` and reads what it returns.

import { startTests, type TaskResult, type VitestRunner, type VitestRunnerConfig } from "@vitest/runner";

/** One test as it ended. */
export interface Outcome {
  readonly file: string;
  readonly name: string;
  readonly state: "passed" | "failed" | "skipped";
  readonly ms: number;
  /** Why it failed or was skipped. */
  readonly message: string;
}

export interface Wanted {
  /** Addresses of the bundled test files. */
  readonly addresses: readonly string[];
  /** Source of a regular expression for full names of tests, suites included; all tests when absent. */
  readonly pattern?: string;
  readonly timeout: number;
}

type Task = Parameters<NonNullable<VitestRunner["onAfterRunTask"]>>[0] | Suite["tasks"][number];
type Suite = Awaited<ReturnType<typeof startTests>>[number];

function outcome(task: Task): Outcome {
  const {
    state = task.mode,
    duration = 0,
    errors = [],
    note = "",
  }: Partial<TaskResult> & { note?: string } = task.result ?? {};
  const failed = state === "fail";
  return {
    file: task.file.name,
    name: task.fullTestName || task.name,
    state: failed ? "failed" : state === "pass" ? "passed" : "skipped",
    ms: duration,
    message: failed ? errors.map(explain).join("\n") : note,
  };
}

/** The message with those of its causes: fast-check's says which case failed, its cause why. */
function explain(error: { readonly message: string; readonly cause?: unknown }): string {
  const { cause } = error as { cause?: { message: string } };
  return cause ? `${error.message}\n${explain(cause)}` : error.message;
}

function outcomes(task: Task): Outcome[] {
  if (task.type === "test") return [outcome(task)];
  // A suite that fails itself (its file does not load, a hook throws) has tests that never ran.
  const own = task.result?.errors?.length ? [outcome(task)] : [];
  return [...own, ...task.tasks.flatMap(outcomes)];
}

const page = globalThis as unknown as {
  /** Given by run.ts: hears of each test when it ends. */
  report(outcome: Outcome): Promise<void>;
  runTests(wanted: Wanted): Promise<Outcome[]>;
};

page.runTests = async ({ addresses, pattern, timeout }) => {
  const config: VitestRunnerConfig = {
    root: "/",
    setupFiles: [],
    name: undefined,
    passWithNoTests: true,
    testNamePattern: pattern === undefined ? undefined : new RegExp(pattern),
    allowOnly: true,
    sequence: { seed: 1, hooks: "stack", setupFiles: "list" },
    chaiConfig: undefined,
    maxConcurrency: 1,
    testTimeout: timeout,
    hookTimeout: timeout,
    retry: 0,
    includeTaskLocation: false,
    tags: [],
    tagsFilter: undefined,
    strictTags: false,
  };
  const runner: VitestRunner = {
    config,
    importFile: (path) => import(path),
    onAfterRunTask: (task) => void page.report(outcome(task)),
  };
  return (await startTests([...addresses], runner)).flatMap(outcomes);
};
