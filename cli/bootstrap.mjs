// `npm start`, `npm test` and `npm run benchmark:nano`: takes a fresh clone to a state in which everything runs, then starts
// the main job, the tests or the benchmark. Plain JavaScript without dependencies, because it is what installs them. No other
// logic lives here: the job is `gifgrad start` (cli/start.ts), the benchmark cli/benchmark.ts, the tests are vitest's.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { prepareEnvironment, root } from "./environment.mjs";

const say = (text) => console.log(`gifgrad: ${text}`);

function fail(...lines) {
  for (const line of lines) console.error(`gifgrad: ${line}`);
  process.exit(1);
}

function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  fail(`needs Node 20.19 or newer; this is Node ${process.versions.node}. Install a current one: https://nodejs.org`);
}

// ---- packages

/** Whether every package that the lockfile demands is in node_modules, at its version. */
function packagesInstalled() {
  const record = join(root, "node_modules", ".package-lock.json"); // npm's own note of what it unpacked
  if (!existsSync(record)) return false;
  const packages = (file) => JSON.parse(readFileSync(file, "utf8")).packages;
  const have = packages(record);
  return Object.entries(packages(join(root, "package-lock.json"))).every(
    ([path, { version, optional, devOptional }]) =>
      path === "" || (have[path] ? have[path].version === version : optional || devOptional),
  );
}

function installPackages() {
  if (packagesInstalled()) return;
  say("installing packages (npm ci) ...");
  const npm = process.env.npm_execpath; // the npm that runs this script; absent when node was called directly
  const args = ["ci", "--include=dev", "--no-audit", "--no-fund"];
  const options = { cwd: root, stdio: "inherit" };
  const { status } = npm
    ? spawnSync(process.execPath, [npm, ...args], options)
    : spawnSync("npm", args, { ...options, shell: process.platform === "win32" });
  if (status !== 0) fail("npm ci failed (above). Is the network there? Run it by hand to see more.");
}

// ---- adapter

/** What cli/adapter.mjs prints: {name, software} or {error}. */
function probeAdapter() {
  const child = spawnSync(process.execPath, [join(root, "cli", "adapter.mjs")], { encoding: "utf8", timeout: 60_000 });
  const line = child.stdout.split("\n").find((text) => text.startsWith("{"));
  if (line) return JSON.parse(line);
  return { error: `asking Dawn for an adapter ended with ${child.signal ?? `exit code ${child.status}`}` };
}

function findAdapter() {
  let adapter = probeAdapter();
  if (adapter.error && process.platform === "linux") {
    say(`no WebGPU adapter (${adapter.error}); setting up the software Vulkan driver ...`);
    const setup = spawnSync("sh", [join(root, "cli", "setup-vulkan.sh")], { stdio: "inherit" });
    if (setup.status === 0) adapter = probeAdapter();
  }
  const kind = adapter.software ? " (software: runs on the CPU, slow)" : "";
  if (!adapter.error) say(`WebGPU adapter: ${adapter.name}${kind}`);
  return adapter;
}

const installAdvice = [
  "install your GPU's Vulkan driver (Linux) or update the graphics driver (Windows, macOS);",
  "without a GPU, install the Vulkan loader and Mesa >= 23.2 (libvulkan1 and mesa-vulkan-drivers on Debian and Ubuntu).",
];

// ---- the commands

/** The main job, or the benchmark. */
async function job() {
  const adapter = findAdapter();
  if (adapter.error) fail(`no WebGPU adapter: ${adapter.error}`, ...installAdvice);
  await import("./gifgrad.mjs"); // reads the command and its options from the same process.argv
}

/** Runs one of the installed tools to its end, its output going straight through. Resolves to its exit code. */
function runTool(script, args) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, "node_modules", script), ...args], {
      cwd: root,
      stdio: "inherit",
    });
    const wait = () => {}; // Ctrl-C reaches the child too; its end is ours
    process.on("SIGINT", wait);
    child.on("close", (code) => {
      process.off("SIGINT", wait);
      resolve(code ?? 1);
    });
  });
}

/** Counts from vitest's JSON report. A file that could not be loaded has no tests of its own and counts as one failed. */
function countTests(report) {
  if (!existsSync(report)) return { passed: 0, failed: 1, skipped: 0 }; // the run died
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
    readFileSync(report, "utf8"),
  );
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  );
  return {
    passed: numPassedTests,
    failed: numFailedTests + broken.length,
    skipped: numPendingTests + numTodoTests,
  };
}

async function test(args) {
  const adapter = findAdapter();
  if (adapter.error) {
    say(`no WebGPU adapter: ${adapter.error}. Tests that need one will be skipped. To run them too,`);
    for (const line of installAdvice) say(line);
  }
  const types = await runTool("typescript/bin/tsc", []);
  if (types !== 0) say("the type check failed (above); running the tests all the same");
  const report = join(root, ".cache", "test-report.json");
  rmSync(report, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const tests = await runTool("vitest/vitest.mjs", ["run", "--config", "test/vitest.config.ts", ...reporters, ...args]);
  if (!existsSync(report)) say(`the test run ended with exit code ${tests} and no report`);
  const { passed, failed, skipped } = countTests(report);
  if (tests !== 0 && failed === 0)
    say("a test process died before its tests had run (above): they are counted nowhere");
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exit(types || tests);
}

requireNode();
prepareEnvironment();
const [command, ...args] = process.argv.slice(2);
if (!["start", "test", "benchmark"].includes(command))
  fail(`bootstrap.mjs takes "start", "test" or "benchmark", not "${command ?? ""}"`);
installPackages();
await (command === "test" ? test(args) : job());
