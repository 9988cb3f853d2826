// Compiled steps: they equal eager evaluation, assignments behave like statements, random numbers are fresh, reproducible
// and the same everywhere, and misuse gets a clear error. Each law holds on the reference and on the GPU.

import fc from "fast-check";
import { expect, test } from "vitest";
import { grad } from "../engine/autograd.ts";
import { compile, trace } from "../engine/compile.ts";
import { type Device, useDevice } from "../engine/device.ts";
import { DTypeError, ShapeError } from "../engine/error.ts";
import { makePlan } from "../engine/plan/plan.ts";
import { ReferenceDevice } from "../engine/reference.ts";
import { formatProfile } from "../engine/runtime/profile.ts";
import { Parameter, Rng } from "../engine/state.ts";
import { full, Tensor, tensor } from "../engine/tensor.ts";
import { MINIMUM_CAPS } from "../kernels/wgsl.ts";
import { expectClose } from "./close.ts";
import { onEach, onGpu } from "./device.ts";

const list = async (t: Tensor): Promise<number[]> => [...(await t.data())];
const parameter = (...values: number[]): Parameter => new Parameter([values.length], new Float32Array(values));

onEach("a compiled step equals the same function called eagerly", async () => {
  const f = ({ x, w }: { x: Tensor; w: Tensor }): { y: Tensor; g: Tensor } => {
    const y = x.matmul(w).softmax();
    return { y, g: grad(y.square().sum(), [w])[0] };
  };
  const feed = { x: tensor([1, 2, 3, 4, 5, 6].map(Math.sin), [2, 3]), w: tensor([1, -1, 2, 0, 0.5, 1], [3, 2]) };
  const [eager, compiled] = [f(feed), compile(f)(feed)];
  expectClose(await compiled.y.data(), await eager.y.data(), "y", { rtol: 1e-6 });
  expectClose(await compiled.g.data(), await eager.g.data(), "g", { rtol: 1e-5 });
});

onEach("a read after assign sees the new value, a tensor made before it the old one", async () => {
  const p = parameter(1, 2);
  const step = compile(() => {
    const [before, same] = [p.add(0), p.reshape([2])];
    p.assign(p.mul(10));
    const after = p.add(1);
    p.assign(p.add(0.5));
    return { before, same, after, last: p };
  });
  const out = step({});
  expect(await list(out.before)).toEqual([1, 2]);
  expect(await list(out.same)).toEqual([1, 2]);
  expect(await list(out.after)).toEqual([11, 21]);
  expect(await list(out.last)).toEqual([10.5, 20.5]);
  expect(await list(p)).toEqual([10.5, 20.5]);
});

// What a checkpoint rests on: a state holds no more than its dtype does, so values that were read and written back, as a
// saved run's are, go on as if nothing had happened.
onEach("a state read and written back after any step goes on to the same bits", async () => {
  const [STEPS, start] = [12, [1 / 3, -0.7, 1e-3]];
  const after = async (interrupted?: number) => {
    let [p, h] = [parameter(...start), new Parameter([3], Float32Array.from(start), { dtype: "f16" })];
    for (let k = 0; k < STEPS; k++) {
      if (k === interrupted) {
        p = parameter(...(await list(p)));
        h = new Parameter([3], Float32Array.from(await list(h)), { dtype: "f16" });
      }
      p.assign(p.mul(0.9).add(1 / (k + 3)));
      h.assign(h.cast("f32").mul(1.1).add(p).cast("f16"));
    }
    return [...(await list(p)), ...(await list(h))];
  };
  const whole = await after();
  for (let k = 1; k < STEPS; k++) expect(await after(k), `interrupted after step ${k}`).toEqual(whole);
});

onEach("two states swap, three rotate", async () => {
  const states = [parameter(1, 2), parameter(3, 4), parameter(5, 6)];
  const [a, b, c] = states;
  const swap = compile(() => {
    const old = new Tensor(a.node);
    a.assign(b);
    b.assign(old);
    return {};
  });
  const rotate = compile(() => {
    const old = states.map((s) => new Tensor(s.node));
    states.forEach((s, i) => {
      s.assign(old[(i + 1) % 3]);
    });
    return {};
  });
  swap({});
  expect(await Promise.all(states.map(list))).toEqual([
    [3, 4],
    [1, 2],
    [5, 6],
  ]);
  rotate({});
  expect(await Promise.all(states.map(list))).toEqual([
    [1, 2],
    [5, 6],
    [3, 4],
  ]);
  expect(await list(c)).toEqual([3, 4]);
});

onEach("one value for two states and the output; an old value that is still needed", async () => {
  const [a, b] = [parameter(1, 2), parameter(0, 0)];
  const step = compile(({ x }: { x: Tensor }) => {
    const value = a.add(x);
    const flipped = a.flip([0]);
    a.assign(value);
    b.assign(value);
    return { value, flipped, double: value.mul(2) };
  });
  for (const want of [
    [2, 3],
    [3, 4],
  ]) {
    const { value, flipped, double } = step({ x: tensor([1, 1]) });
    expect([await list(value), await list(a), await list(b)]).toEqual([want, want, want]);
    expect(await list(flipped)).toEqual([want[1] - 1, want[0] - 1]);
    expect(await list(double)).toEqual(want.map((v) => 2 * v));
  }
});

onEach("states take inputs, constants and other leaves", async () => {
  const [a, b, c] = [parameter(0, 0), parameter(0, 0), parameter(0, 0)];
  const data = tensor([7, 8]);
  const step = compile(({ x }: { x: Tensor }) => {
    a.assign(x);
    b.assign(full([2], 4));
    c.assign(data);
    return {};
  });
  step({ x: tensor([5, 6]) });
  expect([await list(a), await list(b), await list(c)]).toEqual([
    [5, 6],
    [4, 4],
    [7, 8],
  ]);
});

onEach("a state that a product reads is not overwritten under it", async () => {
  const p = new Parameter([2, 2], new Float32Array([1, 1, 0, 1]));
  const step = compile(() => {
    p.assign(p.matmul(p));
    return {};
  });
  step({});
  step({});
  expect(await list(p)).toEqual([1, 4, 0, 1]);
});

test("a state is written in place only where nobody needs its old value any more", () => {
  const copies = (update: (p: Parameter) => Tensor | undefined): number => {
    const p = new Parameter([64, 64], () => new Float32Array(4096));
    const body = (): Record<string, Tensor> => {
      const late = update(p);
      return late ? { late } : {};
    };
    return makePlan(trace("update", body, {}), MINIMUM_CAPS).copies.length;
  };
  const assign = (f: (p: Tensor) => Tensor) => (p: Parameter) => void p.assign(f(p));
  expect(copies(assign((p) => p.mul(0.9).add(1)))).toBe(0);
  expect(copies(assign((p) => p.mul(p.exp().sum())))).toBe(0);
  expect(copies(assign((p) => p.transpose().mul(0.9)))).toBe(1);
  expect(copies(assign((p) => p.matmul(p)))).toBe(1);
  const usedAfter = (p: Parameter): Tensor => {
    const [old, next] = [new Tensor(p.node), p.add(1)];
    p.assign(next);
    return next.matmul(next).add(old); // waits for the new value and reads the old one
  };
  expect(copies(usedAfter)).toBe(1);
});

/** AdamW as in Loshchilov & Hutter 2019, algorithm 2, in float64. */
function adamw(w: number, g: number, m: number, v: number, t: number): [number, number, number] {
  const [m1, v1] = [0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g];
  const update = m1 / (1 - 0.9 ** t) / (Math.sqrt(v1 / (1 - 0.99 ** t)) + 1e-8);
  return [w - 0.1 * (update + 0.01 * w), m1, v1];
}

onEach("an optimiser update is done in place and is right", async () => {
  const start = [0.5, -1, 2, 0.25];
  const [w, m, v] = [parameter(...start), parameter(0, 0, 0, 0), parameter(0, 0, 0, 0)];
  const step = compile(({ t }: { t: Tensor }) => {
    const [g] = grad(w.square().sum(), [w]);
    m.assign(m.mul(0.9).add(g.mul(0.1)));
    v.assign(v.mul(0.99).add(g.square().mul(0.01)));
    const correct = (decay: number): Tensor => t.mul(Math.log(decay)).exp().neg().add(1);
    const update = m.div(correct(0.9)).div(v.div(correct(0.99)).sqrt().add(1e-8));
    w.assign(w.sub(update.add(w.mul(0.01)).mul(0.1)));
    return {};
  });
  let want = start.map((x): [number, number, number] => [x, 0, 0]);
  for (let t = 1; t <= 5; t++) {
    step({ t: t as unknown as Tensor });
    want = want.map(([x, mx, vx]) => adamw(x, 2 * x, mx, vx, t));
  }
  for (const [i, state] of [w, m, v].entries())
    expectClose(
      await state.data(),
      want.map((s) => s[i]),
      `state ${i}`,
      { rtol: 1e-4 },
    );
  const plan = makePlan(step.program(), MINIMUM_CAPS);
  expect(plan.copies).toEqual([]);
  expect(plan.outputs).toEqual([]);
});

onEach("a step is fed its own result", async () => {
  const step = compile(({ x }: { x: Tensor }) => ({ x: x.mul(2).add(1) }));
  let x = tensor([0, 1]);
  for (let i = 0; i < 7; i++) x = step({ x }).x;
  expect(await list(x)).toEqual([127, 255]);
});

test("a parameter takes plain numbers, as many as its shape has, and a generator bounds that it can draw", async () => {
  useDevice(new ReferenceDevice());
  expect(await list(new Parameter([2], [1, 2]))).toEqual([1, 2]);
  expect(await new Parameter([2], [1, -2], { dtype: "i32" }).data()).toEqual(Int32Array.of(1, -2));
  expect(() => new Parameter([2], [1, 2, 3])).toThrow("3 values for a parameter of shape [2]");
  expect(() => new Parameter([1], 5 as unknown as number[])).toThrow("expected an array of values or a function");
  expect(() => new Rng(1).integers([2], 2 ** 24)).not.toThrow();
  for (const below of [2 ** 24 + 1, 0, 2.5]) expect(() => new Rng(1).integers([2], below)).toThrow("from 1 to 2^24");
});

/** Three calls of a step that draws twice, and a later eager draw. */
async function drawings(): Promise<number[][]> {
  const rng = new Rng(42);
  const step = compile(() => ({ u: rng.uniform([5]), n: rng.normal([3, 3]), k: rng.integers([8], 10) }));
  const out: number[][] = [];
  for (let i = 0; i < 3; i++) for (const t of Object.values(step({}))) out.push(await list(t));
  return [...out, await list(rng.normal([4])), await list(rng.split("other").uniform([4]))];
}

onEach("draws are fresh and reproducible", async () => {
  const [one, two] = [await drawings(), await drawings()];
  expect(one).toEqual(two);
  expect(new Set(one.map((d) => d.slice(0, 3).join())).size).toBe(one.length);
  expect(
    one
      .filter((_, i) => i % 3 === 0 && i < 9)
      .flat()
      .every((u) => u >= 0 && u < 1),
  ).toBe(true);
  expect(
    one
      .filter((_, i) => i % 3 === 2 && i < 9)
      .flat()
      .every((k) => Number.isInteger(k) && k >= 0 && k < 10),
  ).toBe(true);
});

onGpu("the GPU draws the reference's numbers, bit for bit", async (device: Device) => {
  const onDevice = await drawings();
  useDevice(new ReferenceDevice());
  const onHost = await drawings();
  useDevice(device);
  expect(onDevice).toEqual(onHost);
});

/** What a drawn step did to three states, and returned, after each of two calls. */
async function drawnUpdates(choices: readonly number[]): Promise<number[][]> {
  const states = [0, 1, 2].map(
    (i) =>
      new Parameter(
        [2, 2],
        Float32Array.from([1, 2, 3, 4], (v) => Math.sin(v + 4 * i)),
      ),
  );
  const step = compile(({ x }: { x: Tensor }) => {
    let i = 0;
    const pick = (n: number): number => choices[i++ % choices.length] % n;
    const pool: Tensor[] = [...states.map((s) => new Tensor(s.node)), x];
    const forms: ((a: Tensor, b: Tensor) => Tensor)[] = [
      (a, b) => a.add(b).mul(0.5),
      (a) => a.transpose(),
      (a) => a.flip([0]).mul(0.9),
      (a, b) => a.mul(b).add(0.25),
      (a, b) => a.matmul(b).mul(0.5),
      (a) => a.sub(a.mean(0, { keepdims: true })),
    ];
    for (let n = 2 + pick(5); n > 0; n--) {
      pool.push(forms[pick(forms.length)](pool[pick(pool.length)], pool[pick(pool.length)]));
      if (pick(2) === 0) states[pick(3)].assign(pool[pick(pool.length)]);
      if (pick(3) === 0) pool.push(states[pick(3)].add(0));
    }
    return { y: pool[pool.length - 1], z: pool[pick(pool.length)] };
  });
  const out: number[][] = [];
  for (let call = 0; call < 2; call++) {
    const { y, z } = step({ x: tensor([1, -1, 0.5, 2], [2, 2]) });
    for (const t of [y, z, ...states]) out.push(await list(t));
  }
  return out;
}

onGpu("random updates of states, in place or not, equal the reference's", async (device) => {
  const property = fc.asyncProperty(
    fc.array(fc.nat({ max: 59 }), { minLength: 40, maxLength: 40 }),
    async (choices) => {
      useDevice(new ReferenceDevice());
      const want = await drawnUpdates(choices);
      useDevice(device);
      expectClose((await drawnUpdates(choices)).flat(), want.flat(), "results and states", { rtol: 1e-5 });
    },
  );
  await fc.assert(property, { seed: 1, numRuns: 25 });
});

onEach("misuse is named", async () => {
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.add(1) }), { name: "bump", maxTraces: 2 });
  step({ x: tensor([1]) });
  step({ x: tensor([1, 2]) });
  expect(() => step({ x: tensor([1, 2, 3]) })).toThrow(
    new ShapeError(
      "bump: traced for 2 different inputs already; now x: f32[3], before x: f32[2] (pad to one shape, or raise maxTraces)",
    ),
  );
  const late = compile((async () => ({})) as unknown as () => Record<string, Tensor>, { name: "late" });
  expect(() => late({})).toThrow("late: a step cannot be async");
  const nested = compile(() => ({ y: step({ x: tensor([1]) }).y }), { name: "outer" });
  expect(() => nested({})).toThrow(/value was asked for inside|called inside outer/);
  const p = parameter(1, 2);
  expect(() => p.assign(tensor([1, 2, 3]))).toThrow(new ShapeError("assign: a f32[2] parameter cannot hold f32[3]"));
  expect(() => tensor(new Int32Array([1])).exp()).toThrow(
    new DTypeError('exp: expected f32, got i32 (cast it: x.cast("f32"))'),
  );
  expect(() => tensor(new Int32Array([1])).mul(0.5)).toThrow(DTypeError);
  expect(() => tensor([1]).concat([tensor(new Int32Array([1]))], 0)).toThrow(DTypeError);
  expect(() => tensor([1]).valueOf()).toThrow(/has no value yet/);
});

onEach("what a step is fed and returns is named where it is wrong", async () => {
  const step = compile(({ x, lr }: { x: Tensor; lr: Tensor }) => ({ y: x.mul(lr) }), { name: "scale" });
  const feed = (f: unknown) => (): unknown => step(f as { x: Tensor; lr: number });
  expect(feed({ x: tensor([1]) })).toThrow(/^scale: was fed no "lr" \(only x\): mul: expected a tensor or a number/);
  expect(feed({ x: [1, 2], lr: 1 })).toThrow('scale: input "x": expected a tensor or a number, got an array');
  expect(feed(undefined)).toThrow("scale: a step is fed its inputs by name, such as step({ x }), got undefined");
  const returning = (value: unknown) => (): unknown => compile(() => value as { y: Tensor }, { name: "odd" })({});
  expect(returning(tensor([1]))).toThrow(
    "odd: a step must return a record of tensors, such as { y }, got Tensor f32[1]",
  );
  expect(returning({ y: 3 })).toThrow('odd: result "y": expected a tensor, got 3');
  const optional = compile((o: Readonly<Record<string, Tensor>>) => ({ y: o.mask ? o.x.mul(o.mask) : o.x.neg() }));
  expect(await list(optional({ x: tensor([1]) }).y)).toEqual([-1]);
});

onEach("what a step computed and did not return has no value outside it", async () => {
  let leak = tensor([0]);
  const step = compile(({ x }: { x: Tensor }) => {
    leak = x.mul(2).add(7);
    return { y: x.neg() };
  });
  expect(await list(step({ x: tensor([1, 2]) }).y)).toEqual([-1, -2]);
  const refused =
    /: a tensor made inside a compiled step, of its input "x", is used outside it: return it from that step/;
  await expect(leak.data()).rejects.toThrow(refused);
  expect(() => leak.add(1).keep()).toThrow(refused);
  expect(() => compile(() => ({ z: leak.mul(2) }), { name: "other" })({})).toThrow(refused);
  expect(() => parameter(1, 2).assign(leak)).toThrow(refused);
});

onGpu("explain lists the dispatches with what was fused", async () => {
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.exp().sum().sqrt() }), { name: "norm" });
  expect(() => step.explain()).toThrow("norm: not traced yet");
  step({ x: tensor([1, 2, 3]) });
  expect(step.explain()).toMatch(/^norm\(x f32\[3\]\): 1 dispatches of 1 kernels/);
  expect(step.explain()).toContain("sum(exp) sqrt");
});

test("constants that JSON cannot tell apart are different nodes", () => {
  const nodes = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 0, -0].map((x) => full([], x).node);
  expect(new Set(nodes).size).toBe(5);
  expect(full([], 1).node).toBe(full([], 1).node);
});

onGpu("a profile times every dispatch and adds up by kernel", async (device) => {
  const step = compile(({ x }: { x: Tensor }) => ({ y: x.exp().sum(1), z: x.matmul(x.transpose()) }), {
    name: "profiled",
  });
  await step({ x: tensor(new Float32Array(256).fill(0.1), [16, 16]) }).y.data();
  const rows = await device.profile(step.program(), 1);
  const listed = step.explain().match(/(\d+) dispatches/)?.[1];
  expect(rows.reduce((sum, r) => sum + r.dispatches, 0)).toBe(Number(listed));
  expect(rows.some((r) => r.label.startsWith("matmul"))).toBe(true);
  expect(rows.every((r) => r.ms >= 0 && r.bytes > 0)).toBe(true);
  expect(rows.reduce((sum, r) => sum + r.flops, 0)).toBe(2 * 16 ** 3 + 2 * 16 ** 2);
  expect(formatProfile(rows).split("\n").at(-1)).toMatch(/total$/);
});
