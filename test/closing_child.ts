// Opens devices one after another, has each compute something of many new kernels, closes it while its assistant is busy, lets
// go of it and collects. For closing.test.ts, which sees whether the process lives.

import { compile, type Tensor, tensor, useDevice } from "../engine/index.ts";
import { openGpu } from "../engine/runtime/gpu.ts";
import { collected } from "./collect.ts";

async function once(n: number): Promise<void> {
  const device = useDevice(await openGpu());
  const x = tensor(
    Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)),
    [8, 8],
  );
  const step = compile(
    () => {
      let y: Tensor = x.add(n);
      for (let i = 1; i < 12; i++)
        y = y
          .matmul(x)
          .slice(1, 0, 8 - (i % 3))
          .softmax()
          .sum(1, { keepdims: true })
          .add(x.slice(1, 0, 8))
          .mul(n + i);
      return { y };
    },
    { name: "many" },
  );
  await step({}).y.data();
  device.close();
  useDevice(null);
}
for (let i = 0; i < 8; i++) {
  await once(i);
  await collected();
}
console.log("alive");
