// The public testing entry: the example of engine/README.md, extracted and run as an outsider would; what the checks say
// about right things; and planted bugs in kernels that they must find. Planted bugs in ops are in ops.test.ts.

import { execFile, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { compile, type Named } from "../engine/compile.ts";
import { customVjp } from "../engine/custom.ts";
import { useDevice } from "../engine/device.ts";
import { DeviceError } from "../engine/error.ts";
import { Linear, layerNorm } from "../engine/nn/index.ts";
import { type AnyOp, defineOp } from "../engine/ops/op.ts";
import { AdamW } from "../engine/optim/index.ts";
import { hostValues, ReferenceDevice } from "../engine/reference.ts";
import { numel, type Shape } from "../engine/shape.ts";
import { Parameter, Rng } from "../engine/state.ts";
import { fromStorage, type Tensor, tensor } from "../engine/tensor.ts";
import {
  type Call,
  CheckError,
  checkKernel,
  checkLaws,
  checkOp,
  directional,
  drawn,
  gradcheck,
  type Report,
} from "../engine/testing/index.ts";
import { interpret } from "../engine/testing/interpret.ts";
import { programOf } from "../engine/testing/laws.ts";
import { type Caps, type Family, foldGrid, type Lowered, storage, uniforms, wgsl } from "../kernels/wgsl.ts";
import { presetConfig } from "../models/config.ts";
import { LatentDiffusion } from "../models/latent_diffusion.ts";
import { onEach, onGpu } from "./device.ts";
import { fences } from "./markdown.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

describe("the examples of engine/README.md", () => {
  const folder = join(root, ".cache", "testing_readme");
  const printed = { expression: ["0.25 1 0.0625"], kernel: ["1 0.5 0.25 2.125"] };
  const names = Object.keys(printed) as (keyof typeof printed)[];
  const entries = { "gifgrad/testing": "engine/testing/index.ts", gifgrad: "engine/index.ts" };
  const alias = Object.fromEntries(Object.entries(entries).map(([name, path]) => [name, join(root, path)]));

  beforeAll(() => {
    const found = fences(readFileSync(join(root, "engine/README.md"), "utf8"), "ts").filter((text) =>
      text.includes('from "gifgrad/testing"'),
    );
    expect(found).toHaveLength(names.length);
    mkdirSync(folder, { recursive: true });
    for (const [i, name] of names.entries()) writeFileSync(join(folder, `${name}.ts`), found[i]);
  });

  test("type-check", () => {
    const paths = Object.fromEntries(Object.entries(alias).map(([name, path]) => [name, [path]]));
    const config = join(folder, "tsconfig.json");
    const files = names.map((name) => `${name}.ts`);
    const options = { extends: "../../tsconfig.json", compilerOptions: { paths }, include: [], files };
    writeFileSync(config, JSON.stringify(options));
    const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
    expect(spawnSync(process.execPath, [tsc, "-p", config], { encoding: "utf8" }).stdout).toBe("");
  });

  for (const name of names) {
    onGpu(`${name}: defines an op, proves its laws and uses it`, async () => {
      const outfile = join(folder, `${name}.mjs`);
      const options = { bundle: true, platform: "node", format: "esm", packages: "external" } as const;
      await build({ entryPoints: [join(folder, `${name}.ts`)], outfile, alias, ...options });
      const { stdout } = await promisify(execFile)(process.execPath, [outfile], { timeout: 100_000 });
      expect(stdout.trim().split("\n")).toEqual([expect.stringMatching(/^\d+ laws hold$/), ...printed[name]]);
    });
  }
});

// ---- kernels ---------------------------------------------------------------------------------------------------------

interface Doubled {
  readonly count: number;
}

/** y = 2 x through a tile in workgroup memory; `plant` changes the text. */
function doubled(plant: (text: string) => string): Family<Doubled> {
  const emit = ({ count }: Doubled, caps: Caps): Lowered => {
    const u = uniforms(3, [["count", "u32", count]]);
    const text = wgsl`
      ${storage([
        ["x", "f32"],
        ["y", "f32"],
        ["seen", "u32"],
      ])}
      ${u.wgsl}
      var<workgroup> tile: array<f32, 64>;
      @compute @workgroup_size(64)
      fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) lane: u32) {
        let i = (wg.y * grid.x + wg.x) * 64u + lane;
        if (i < u.count) { tile[lane] = x[i]; }
        workgroupBarrier();
        let scale = 2.0f;
        if (i < u.count) { y[i] = scale * tile[lane]; }
        seen[0] = 1u;
      }
    `;
    const workgroups = foldGrid(Math.ceil(count / 64), caps);
    const source = { label: "doubled", wgsl: plant(text), workgroups, uniforms: u.words };
    return { passes: [{ source, operands: [0, 1, 2] }], scratch: [1] };
  };
  return {
    name: "doubled",
    variants: [{ name: "tile", supports: () => true, emit }],
    inputs: ({ count }) => [{ dtype: "f32", size: count }],
    outputs: ({ count }) => [{ dtype: "f32", size: count }],
    reference: (_, [x]) => [x.map((v) => 2 * v)],
    draw: (d) => ({ count: d.pick([1, 63, 64, 65, 128, 129]) }),
    rtol: 0,
  };
}
const replaced =
  (from: string, to: string) =>
  (text: string): string => {
    expect(text).toContain(from);
    return text.replace(from, to);
  };

describe("checkKernel", () => {
  onGpu("counts the cases of each law of a kernel that is right", async () => {
    const { cases, skipped } = await checkKernel(
      doubled((text) => text),
      { cases: 40 },
    );
    const why = "its kernels are not joined with others (3 of 4 cases)"; // with more than one workgroup: it uses their memory
    expect(skipped).toEqual({ "kernel doubled: joined with others equals the definition": why });
    expect(Object.values(cases)).toEqual([40, 40, 4, 1]);
  });
  const bugs: [string, string, string, RegExp][] = [
    ["a wrong result", "scale = 2.0f", "scale = 2.5f", /doubled\/tile, \{"count":1\}: output 0, element 0: expected/],
    [
      "an element beyond a tile's edge",
      "wg.x) * 64u + lane",
      "wg.x) * 64u + lane + min(wg.x, 1u)",
      /doubled\/tile, \{"count":65\}: output 0, element 64: expected .*, got 1.0\d+e\+30.*1 of 65 are off/,
    ],
    [
      "an element left out",
      "if (i < u.count) { y[i]",
      "if (i + 1u < u.count) { y[i]",
      /"count":1\}: output 0, element 0/,
    ],
    [
      "a result that changes from run to run",
      "scale = 2.0f",
      "scale = select(2.0f, 2.000001f, seen[0] == 1u)",
      /"count":1\}: output 0 is not the same on every run, element 0: .* the first time, .* the second/,
    ],
    ["WGSL that does not compile", "scale = 2.0f", "scale = 2.0q", /doubled, line \d+: .*: let scale = 2.0q;/],
  ];
  for (const [name, from, to, message] of bugs)
    onGpu(`finds ${name}`, async () => {
      const attempt = checkKernel(doubled(replaced(from, to)), { cases: 200 });
      await expect(attempt).rejects.toThrow(CheckError);
      await expect(attempt).rejects.toThrow(message);
    });
  const unfolded = (family: Family<Doubled>): Family<Doubled> => {
    const emit = (spec: Doubled, caps: Caps): Lowered => {
      const { passes, scratch } = family.variants[0].emit(spec, caps);
      const workgroups = [Math.ceil(spec.count / 64), 1, 1] as const;
      return { passes: passes.map((p) => ({ ...p, source: { ...p.source, workgroups } })), scratch };
    };
    return { ...family, variants: [{ ...family.variants[0], emit }] };
  };
  const flat = unfolded(doubled((text) => text));
  onGpu("finds a grid that is not folded, before Dawn would", async () => {
    await expect(checkKernel(flat)).rejects.toThrow(
      /compiles for every machine\n {2}doubled\/tile, \{"count":129\}: doubled has a grid of 3 x 1 x 1 workgroups where 2 fit/,
    );
    const long = { ...flat, draw: () => ({ count: 64 * 8 }) };
    await expect(checkKernel(long)).rejects.toThrow(
      /equals the definition\n {2}doubled\/tile, \{"count":512\}: doubled has a grid of 8 x 1 x 1 workgroups where 7 fit/,
    );
  });
  test("finds a spec that nothing supports, without a device", async () => {
    useDevice(new ReferenceDevice());
    const [variant] = doubled((text) => text).variants;
    const few = { ...doubled((text) => text), variants: [{ ...variant, supports: (s: Doubled) => s.count !== 65 }] };
    await expect(checkKernel(few)).rejects.toThrow(/the last variant, tile, does not support \{"count":65\}/);
  });
});

describe("checkOp of an op with a kernel", () => {
  const family = doubled((text) => text);
  const lower = { kind: "kernel", family, spec: ([x]: readonly Shape[]): Doubled => ({ count: numel(x) }) } as const;
  const doubledOp = (parts: object): AnyOp => ({
    name: "doubledOp",
    shape: ([x]) => x,
    reference: ([x], out) => out.data.set(x.data.map((v) => 2 * v)),
    vjp: (g) => [g.mul(2)],
    lower: { ...lower, ...parts },
    draw: (d) => ({ inputs: [{ shape: [d.int(1, 4), d.int(1, 4)] }], attrs: {} }),
    rtol: 0,
  });

  onGpu("holds what the record says of the kernel's operands and of what may follow it", async () => {
    const { cases } = await checkOp(doubledOp({}), { cases: 20 });
    expect(cases["op doubledOp: on views equals the definition"]).toBe(2);
    expect(cases["op doubledOp: with ops behind it equals the definition"]).toBe(2);
  });
  const lies: [string, object, RegExp][] = [
    [
      "operands that the kernel cannot read",
      { strided: () => true },
      /on views equals the definition\n {2}doubledOp, shapes \[[\d,]+\]: on .*, operands (transposed|sliced|broadcast), element/,
    ],
    [
      "an epilogue that the kernel leaves out",
      { epilogue: true },
      /with ops behind it equals the definition\n {2}doubledOp, shapes \[[\d,]+\]: on .*, a number added to it, element/,
    ],
  ];
  for (const [name, parts, message] of lies)
    onGpu(`finds ${name}`, async () => {
      const attempt = checkOp(doubledOp(parts), { cases: 20 });
      await expect(attempt).rejects.toThrow(CheckError);
      await expect(attempt).rejects.toThrow(message);
    });
});

describe("checkOp of calls that may have no elements", () => {
  const draw: AnyOp["draw"] = (d) => ({ inputs: [{ shape: [d.int(0, 2), d.int(0, 2)] }], attrs: { axes: [0] } });
  const rtol = 2 ** -22;
  const why = "one rounding";
  const twice: AnyOp = {
    name: "twiceOrNone",
    shape: ([x]) => x,
    reference: ([x], out) => out.data.set(x.data.map((v) => 2 * v)),
    vjp: (g) => [g.mul(2)],
    lower: { kind: "elementwise", wgsl: ([x]) => `(${x} + ${x})` },
    ...{ draw, rtol, why },
  };
  const below: AnyOp = {
    name: "sumOrNone",
    shape: ([[, columns]]) => [1, columns],
    reference: ([x], out) => {
      out.data.fill(0);
      for (const [i, v] of x.data.entries()) out.data[i % out.data.length] += v;
    },
    vjp: (g, [x]) => [g.expand(x.shape)],
    lower: { kind: "reduce", combine: "sum" },
    ...{ draw, rtol, why, sums: true },
  };
  for (const op of [twice, below])
    onEach(op.name, async () => {
      const { cases } = await checkOp(op);
      expect(cases[`op ${op.name}: fused equals unfused`]).toBe(30);
    });
});

// ---- functions and programs ------------------------------------------------------------------------------------------

const pairs = drawn((d) => {
  const shape = [d.int(1, 4), d.int(1, 4)];
  return { inputs: [{ shape }, { shape: [shape[1], d.int(1, 3)] }] };
});

describe("gradcheck", () => {
  test("of a function of two matrices, first and second order", async () => {
    const { cases } = await gradcheck(([x, y]) => x.matmul(y).tanh(), pairs, { name: "tanh(x y)" });
    expect(cases).toEqual({ "tanh(x y): gradient": 30, "tanh(x y): second derivative": 30 });
  });
  test("takes any arbitrary of fast-check, and a domain", async () => {
    const shape = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 });
    const calls = shape.map((s) => ({ inputs: [{ shape: s, domain: [0.5, 2] as const }] }));
    await gradcheck(([x]) => x.log().mul(x.sqrt()), calls);
  });
  test("shrinks what is wrong to the smallest call", async () => {
    const lossy = ([x, y]: readonly Tensor[]): Tensor => x.matmul(y).mul(x.sum().detach());
    await expect(gradcheck(lossy, pairs, { name: "lossy" })).rejects.toThrow(
      /^lossy: gradient\n {2}lossy, shapes \[1,1\] \[1,1\]: gradient of input 0, element 0: expected [-.\d]+, got [-.\d]+ \(seed 1\)/,
    );
  });
});

/** The square, with a gradient that is not its own. */
const bad = customVjp(
  (y: Tensor) => y.square(),
  (g) => [g.mul(7)],
);
const one: fc.Arbitrary<Call> = fc.constant({ inputs: [{ shape: [2, 3] }] });

describe("gradcheck of a function that captures what lives on the device", () => {
  const check = (f: (x: Tensor) => Tensor): Promise<Report> => gradcheck(([x]) => f(x), one, { cases: 2, name: "f" });
  const wrong = /f: gradient\n {2}f, shapes \[2,3\]: gradient of input 0, element \d: expected [-.\d]+, got [-.\d]+/;

  onEach("finds a wrong gradient over trained parameters", async () => {
    const net = new Linear(3, 4).seed(1);
    const adam = new AdamW(net.state());
    const x = tensor([0.1, -0.2, 0.3, 0.4, 0.5, -0.6], [2, 3]);
    const step = compile(() => {
      const loss = net.forward(x).square().mean();
      adam.step(grad(loss, adam.targets), { lr: 0.1 });
      return { loss };
    });
    for (let i = 0; i < 3; i++) step({});
    await expect(check((x) => bad(net.forward(x)))).rejects.toThrow(wrong);
    await check((x) => net.forward(x).square());
  });
  onEach("finds a wrong gradient over values that were read, and over a step's results", async () => {
    const y = tensor([1, 2, 3]).mul(0.5);
    await y.data();
    const { z } = compile(({ x }: Named) => ({ z: x.add(1) }))({ x: y });
    for (const captured of [y, z]) {
      await expect(check((x) => bad(x.mul(captured)))).rejects.toThrow(wrong);
      await check((x) => x.mul(captured).square());
      const own = customVjp(
        (x: Tensor) => x.square(),
        (g, [x]) => [g.mul(x).mul(captured.div(captured)).mul(2)], // rests on what the function does not
      );
      await check(own);
    }
  });
  test("takes the values that parameters have, not those they began with", async () => {
    useDevice(new ReferenceDevice());
    const w = new Parameter([], [0]);
    w.assign(w.add(2));
    await expect(check((x) => bad(x.mul(w)))).rejects.toThrow(wrong);
  });
  test("says so when values cannot be had", async () => {
    const y = tensor([1, 2, 3]).mul(0.5);
    useDevice(new ReferenceDevice());
    await y.data();
    useDevice(new ReferenceDevice());
    await expect(check((x) => x.mul(y))).rejects.toThrow(/DeviceError: a tensor's values live on another device/);
    const program = programOf([tensor([1]).mul(fromStorage(y.realise()).sum())]);
    expect(() => interpret(program, (n) => hostValues(n.storage), { maxBindings: 8, fuse: true })).toThrow(DeviceError);
    await expect(checkLaws({ cases: 1, draw: (_, make) => [make([3]).add(y)] })).rejects.toThrow(/another device/);
  });
  test("checkLaws reads what programs capture", async () => {
    useDevice(new ReferenceDevice());
    const y = tensor([1, 2, 3]).mul(0.5);
    await y.data();
    await checkLaws({ cases: 2, draw: (_, make) => [make([3]).add(y)] });
  });
});

describe("what is not checked is not counted:", () => {
  for (const dtype of ["i32", "f16"] as const)
    test(`gradcheck of ${dtype} alone`, async () => {
      const calls: fc.Arbitrary<Call> = fc.constant({ inputs: [{ shape: [2], dtype }] });
      await expect(gradcheck(([x]) => x.cast("f32").square(), calls, { name: "f" })).rejects.toThrow(
        /^gradcheck of f: no case has a float32 input, so nothing was differentiated/,
      );
    });
  test("gradcheck where some cases have whole numbers only", async () => {
    const calls = drawn((d): Call => ({ inputs: [{ shape: [2], dtype: d.pick(["f32", "i32"]) }] }));
    const { cases, skipped } = await gradcheck(([x]) => x.cast("f32").square(), calls, { name: "f", second: false });
    const [, n] = /^no float32 input \((\d+) of 30 cases\)$/.exec(skipped["f: gradient"]) as RegExpExecArray;
    expect(Number(n)).toBeGreaterThan(0);
    expect(cases).toEqual({ "f: gradient": 30 - Number(n) });
  });
  test("checkOp of an op on whole numbers", async () => {
    useDevice(new ReferenceDevice());
    const twice = defineOp({
      name: "twice",
      shape: ([x]) => x,
      reference: ([x], out) => out.data.set(x.data.map((v) => 2 * v)),
      vjp: (g) => [g.mul(7)],
      lower: { kind: "elementwise", wgsl: ([x]) => `(${x} + ${x})` },
      draw: (d) => ({ inputs: [{ shape: [d.int(1, 5)], dtype: "i32" as const }], attrs: {} }),
      rtol: 0,
    });
    const { cases, skipped } = await checkOp(twice);
    expect(cases["op twice: record"]).toBe(30);
    for (const law of ["op twice: gradient", "op twice: second derivative"]) {
      expect(cases).not.toHaveProperty([law]);
      expect(skipped[law]).toBe("no float32 input (30 of 30 cases)");
    }
  });
});

describe("gradients of small functions", () => {
  for (const scale of [1e-8, 1e-11])
    test(`a sign is seen at ${scale}`, async () => {
      const flipped = customVjp(
        (x: Tensor) => x.sin().mul(scale),
        (g, [x]) => [g.mul(x.cos().mul(-scale))],
      );
      await gradcheck(([x]) => x.sin().mul(scale), one, { name: "small" });
      await expect(gradcheck(([x]) => flipped(x), one, { name: "small", second: false })).rejects.toThrow(
        /small: gradient\n.*element 0/,
      );
    });
  test("a gradient that is nothing but rounding is right", async () => {
    await gradcheck(([x]) => x.sub(x.mean(1, { keepdims: true })).sum(1), one);
    await gradcheck(([x]) => x.softmax().sum(), one);
    await gradcheck(([x]) => layerNorm(x.reshape([6, 1])), one);
  });
});

describe("directional", () => {
  const wave = (...shape: number[]): Tensor =>
    tensor(
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 0.7)),
      shape,
    );
  const system = new LatentDiffusion(presetConfig("nano")).seed(1);

  test("of the loss of the whole diffusion system: schedule, text encoder, video UNet", async () => {
    useDevice(new ReferenceDevice());
    const captions = tensor(
      Int32Array.from({ length: 32 }, (_, i) => (i * 7) % 1000),
      [1, 32],
    );
    const loss = system.loss({ latents: wave(1, 2, 4, 4, 4), captions, empty: captions.mul(0) }, new Rng(1));
    const weights = [...system.unet.state().values(), ...system.textEncoder.state().values()];
    expect(weights.length).toBeGreaterThan(500);
    await directional(loss, weights, { directions: 1 });
  });
  test("of the autoencoder's loss", async () => {
    useDevice(new ReferenceDevice());
    const { loss } = system.autoencoder.loss(wave(1, 8, 8, 3), new Rng(1));
    await directional(loss, [...system.autoencoder.state().values()], { directions: 2 });
  });
  test("refuses what is no leaf of the network", async () => {
    const x = wave(2);
    await expect(directional(x.square().sum(), [x.mul(2)])).rejects.toThrow(/tensor 0 of wrt is not a leaf/);
  });
});

describe("checkLaws", () => {
  test("of one's own programs, on the host", async () => {
    useDevice(new ReferenceDevice());
    const { cases, skipped } = await checkLaws({
      cases: 20,
      draw: (d, make) => [
        make([d.int(1, 5), 4])
          .softmax()
          .transpose()
          .mul(2),
      ],
    });
    expect(Object.values(cases)).toEqual([20, 20, 20, 20]);
    expect(Object.keys(skipped)).toHaveLength(3);
  });
});
