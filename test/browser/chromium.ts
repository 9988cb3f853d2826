// Debian's Chromium without a window, on a page of 127.0.0.1, which counts as secure: WebGPU exists only there. Used by
// run.ts and by chromium.test.ts.

import { existsSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Page } from "playwright-core";

export const CHROMIUM = "/usr/bin/chromium";
export const hasChromium = existsSync(CHROMIUM);

/** Lets WebGPU use SwiftShader, which Chromium keeps for tests. A GPU, where there is one, comes first. */
export const WEBGPU = ["--enable-unsafe-webgpu"];

const ARGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run"];

export interface Browser {
  readonly page: Page;
  close(): Promise<void>;
}

/** Opens `/` of the given files, path -> text; those that do not end in .js are HTML. */
export async function openPage(files: ReadonlyMap<string, string>, args: readonly string[] = []): Promise<Browser> {
  const { chromium } = await import("playwright-core");
  const server = createServer(({ url = "/" }, response) => {
    const text = files.get(url);
    response.writeHead(text === undefined ? 404 : 200, {
      "content-type": url.endsWith(".js") ? "text/javascript" : "text/html",
    });
    response.end(text);
  });
  await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: [...ARGS, ...args] });
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  return {
    page,
    close: async () => {
      await browser.close();
      server.close();
    },
  };
}
