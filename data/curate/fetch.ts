// Fetching from other people's servers, politely: few requests at a time and fewer to one host, pauses between them, what the
// host's robots.txt asks, patience with 429 and 5xx, and an end to answers that are too long. Used by collect.

import { setTimeout as sleep } from "node:timers/promises";
import { LIMITS } from "../decode/limits.ts";
import type { FetchConfig } from "./config.ts";
import { NotNow } from "./stage.ts";

/** Times that an address may be sent on; RFC 9309 asks for five at least. */
const REDIRECTS = 5;

export interface GetOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly maxBytes?: number;
}

interface Host {
  running: number;
  /** When the next request may start, in ms. */
  free: number;
  robots?: Promise<readonly string[]>;
  readonly waiting: (() => void)[];
}

export class Fetcher {
  readonly #config: FetchConfig;
  readonly #hosts = new Map<string, Host>();

  constructor(config: FetchConfig) {
    this.#config = config;
  }

  /**
   * The body of an answer. Where a server sends on to another, that one's turn and robots.txt are waited for and asked as well;
   * `headers`, in which a key may be, go to the first one's origin only.
   * @throws NotNow when the server is away or busy after all retries; Error when it refuses, or the body is too long
   */
  async get(url: string, { headers = {}, maxBytes = LIMITS.fileBytes }: GetOptions = {}): Promise<Uint8Array> {
    const first = parse(url);
    return this.#follow(first, async (address) => {
      const host = this.#host(address.host);
      if (this.#config.robots === "obey" && (await this.#forbidden(host, address))) {
        throw new Error(`robots.txt of ${address.host} asks not to fetch this`);
      }
      const sent = address.origin === first.origin ? headers : {};
      return this.#turn(host, () => this.#patiently(address, sent, maxBytes));
    });
  }

  /** Asks an address, and those that it is sent on to. */
  async #follow(first: URL, ask: (address: URL) => Promise<Uint8Array | URL>): Promise<Uint8Array> {
    let address = first;
    for (let hops = 0; hops <= REDIRECTS; hops++) {
      const answer = await ask(address);
      if (answer instanceof Uint8Array) return answer;
      address = answer;
    }
    throw new Refused(`the server sent on more than ${REDIRECTS} times`);
  }

  #host(name: string): Host {
    const found = this.#hosts.get(name) ?? { running: 0, free: 0, waiting: [] };
    this.#hosts.set(name, found);
    return found;
  }

  /** Waits until the host may be asked again. */
  async #turn<T>(host: Host, use: () => Promise<T>): Promise<T> {
    while (host.running >= this.#config.perHost) await new Promise<void>((resolve) => host.waiting.push(resolve));
    host.running++;
    try {
      const now = Date.now();
      const start = Math.max(now, host.free);
      host.free = start + this.#config.delayMs;
      if (start > now) await sleep(start - now);
      return await use();
    } finally {
      host.running--;
      host.waiting.shift()?.();
    }
  }

  async #patiently(address: URL, headers: GetOptions["headers"], maxBytes: number): Promise<Uint8Array | URL> {
    for (let attempt = 0; ; attempt++) {
      const answer = await this.#once(address, headers, maxBytes);
      if (answer instanceof Uint8Array || answer instanceof URL) return answer;
      if (attempt >= this.#config.retries) throw new NotNow(answer.reason);
      await sleep(answer.afterMs ?? 1000 * 2 ** attempt);
    }
  }

  /** The body, or where it is said to be, or why to try again, and when. */
  async #once(
    address: URL,
    headers: GetOptions["headers"],
    maxBytes: number,
  ): Promise<Uint8Array | URL | { reason: string; afterMs?: number }> {
    let response: Response;
    try {
      response = await fetch(address, {
        headers: { "user-agent": this.#config.userAgent, ...headers },
        redirect: "manual",
        signal: AbortSignal.timeout(1000 * this.#config.timeoutSeconds),
      });
      if (response.ok) return await body(response, maxBytes);
    } catch (error) {
      if (error instanceof TooLong) throw error;
      return { reason: `no answer (${cause(error)})` };
    }
    await response.body?.cancel();
    const onward = response.headers.get("location");
    if (onward !== null && [301, 302, 303, 307, 308].includes(response.status)) return parse(onward, address.href);
    if (response.status !== 429 && response.status < 500) throw new Refused(`the server answered ${response.status}`);
    const seconds = Number(response.headers.get("retry-after"));
    const afterMs = seconds > 0 ? 1000 * Math.min(seconds, 300) : undefined;
    return { reason: `the server answered ${response.status}`, afterMs };
  }

  async #forbidden(host: Host, address: URL): Promise<boolean> {
    host.robots ??= this.#robots(address);
    const rules = await host.robots;
    return forbids(rules, address.pathname + address.search);
  }

  /** RFC 9309: a server without a robots.txt (4xx) allows everything, one that cannot tell (5xx, no answer) nothing for now. */
  async #robots(address: URL): Promise<readonly string[]> {
    const ask = (at: URL) => this.#turn(this.#host(at.host), () => this.#patiently(at, {}, 1 << 20));
    try {
      const file = await this.#follow(new URL("/robots.txt", address), ask);
      return robotsRules(new TextDecoder().decode(file), this.#config.userAgent);
    } catch (error) {
      if (error instanceof Refused) return [];
      if (error instanceof NotNow) throw new NotNow(`robots.txt of ${address.host}: ${error.message}`);
      throw error;
    }
  }
}

/** The server's answer is that it does not have it, or does not give it. */
class Refused extends Error {}

class TooLong extends Error {}

function parse(url: string, base?: string): URL {
  const address = URL.canParse(url, base) ? new URL(url, base) : null;
  if (address && /^https?:$/.test(address.protocol)) return address;
  throw new Error("not an http address");
}

async function body(response: Response, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += (chunk as Uint8Array).length;
    if (length > maxBytes) throw new TooLong(`the answer is longer than ${maxBytes} bytes`);
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks);
}

function cause(error: unknown): string {
  const { message, cause: inner } = error as Error;
  return inner instanceof Error ? inner.message || (inner as NodeJS.ErrnoException).code || message : message;
}

/** The rules "+path" and "-path" of a robots.txt (RFC 9309) for an agent: those of its own group, or else of "*". */
export function robotsRules(file: string, agent: string): string[] {
  const groups = new Map<string, string[]>();
  let [current, naming]: [string[], boolean] = [[], false];
  for (const line of file.split("\n")) {
    const [, field, value] = /^\s*([a-z-]+)\s*:\s*([^#]*?)\s*(#.*)?$/i.exec(line.trim()) ?? [];
    if (field === undefined) continue;
    const key = field.toLowerCase();
    if (key === "user-agent") {
      if (!naming) current = [];
      naming = true;
      const known = groups.get(value.toLowerCase());
      if (known) current = known;
      groups.set(value.toLowerCase(), current);
    } else {
      naming = false;
      if (value !== "" && key === "disallow") current.push(`-${value}`);
      if (value !== "" && key === "allow") current.push(`+${value}`);
    }
  }
  const own = [...groups.keys()].find((name) => name !== "*" && agent.toLowerCase().startsWith(name));
  return groups.get(own ?? "*") ?? [];
}

/** The longest rule that matches decides; allowing wins a tie. */
export function forbids(rules: readonly string[], path: string): boolean {
  let [length, verdict] = [-1, false];
  for (const rule of rules) {
    const pattern = rule.slice(1);
    const escaped = pattern
      .replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
      .replaceAll("\\*", ".*")
      .replace(/\\\$$/, "$");
    if (!new RegExp(`^${escaped}`).test(path)) continue;
    const forbidding = rule[0] === "-";
    if (pattern.length > length || (pattern.length === length && !forbidding)) {
      [length, verdict] = [pattern.length, forbidding];
    }
  }
  return verdict;
}
