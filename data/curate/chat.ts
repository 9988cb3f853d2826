// A client of servers that speak the OpenAI chat dialect (Ollama, vLLM, llama.cpp, ...): pictures and text in, JSON after a schema
// out. Answers are kept by everything that led to them, so nothing is paid for twice; a budget ends the work, not the data set.

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { replaceFile } from "../../engine/atomic.ts";
import { sha256 } from "../hash.ts";
import type { CurateConfig } from "./config.ts";
import { NotNow } from "./stage.ts";

export type AnnotateConfig = CurateConfig["annotate"];

export interface Question<Answer> {
  readonly model: string;
  readonly text: string;
  /** PNG files, shown in order behind the text, each with a line that says what it is. */
  readonly images?: readonly { readonly label: string; readonly png: Uint8Array }[];
  /** What the answer must be. */
  readonly schema: z.ZodType<Answer>;
}

/** The server takes one picture a message, or none at all. */
export class TooManyImages extends Error {
  override readonly name = "TooManyImages";
}

/** Raised when an answer would go over the budget. Everything that was answered is kept. */
export class BudgetSpent extends Error {
  override readonly name = "BudgetSpent";
}

const reply = z.object({
  choices: z.array(z.object({ message: z.object({ content: z.string() }) })).min(1),
  usage: z.object({ prompt_tokens: z.number(), completion_tokens: z.number() }).partial().optional(),
});

/** Tokens that servers count for a picture of up to 512 pixels, to estimate by. */
const IMAGE_TOKENS = 256;
const ANSWER_TOKENS = 150;

export class ChatClient {
  readonly #config: AnnotateConfig;
  readonly #cache: string;
  /** Answers under way, by their files: stickers that ask the same at once get one answer, and it is written and paid once. */
  readonly #asking = new Map<string, Promise<string>>();
  #spent = 0;

  /** `cache`: a folder for answers. */
  constructor(config: AnnotateConfig, cache: string) {
    this.#config = config;
    this.#cache = cache;
  }

  /** In the currency of `pricePerMillion`; answers from the cache cost nothing. */
  get spent(): number {
    return this.#spent;
  }

  /**
   * @throws NotNow when the server is away after all retries; TooManyImages; BudgetSpent; Error when the server refuses the
   * question or its answer does not follow the schema
   */
  async ask<Answer>(question: Question<Answer>): Promise<Answer> {
    const body = requestBody(question);
    const path = join(this.#cache, `${sha256(body)}.json`);
    if (existsSync(path)) return parseAnswer(await readFile(path, "utf8"), question.schema);
    const { budget } = this.#config;
    if (budget !== undefined && this.#spent >= budget && !this.#asking.has(path)) {
      throw new BudgetSpent(`the budget of ${budget} is spent: raise annotate.budget and run this again`);
    }
    const asking =
      this.#asking.get(path) ?? this.#fresh(body, path, question.schema).finally(() => this.#asking.delete(path));
    this.#asking.set(path, asking);
    return parseAnswer(await asking, question.schema);
  }

  /** Asks the server and remembers the answer in a file, if it is one. */
  async #fresh(body: string, path: string, schema: z.ZodType): Promise<string> {
    const { content, cost } = await this.#patiently(body);
    this.#spent += cost;
    parseAnswer(content, schema); // throws where it is no answer, which is not remembered
    await mkdir(this.#cache, { recursive: true });
    await replaceFile(path, (file) => file.writeFile(content));
    return content;
  }

  async #patiently(body: string): Promise<{ content: string; cost: number }> {
    for (let attempt = 0; ; attempt++) {
      const { ok, wait } = await this.#once(body);
      if (ok) return ok;
      if (attempt >= this.#config.retries) throw new NotNow(wait.reason);
      await sleep(wait.afterMs ?? 500 * 2 ** attempt);
    }
  }

  async #once(
    body: string,
  ): Promise<
    | { ok: { content: string; cost: number }; wait?: undefined }
    | { ok?: undefined; wait: { reason: string; afterMs?: number } }
  > {
    const { server, keyFrom, timeoutSeconds, pricePerMillion } = this.#config;
    const key = process.env[keyFrom];
    const response = await fetch(`${server?.replace(/\/$/, "")}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body,
      signal: AbortSignal.timeout(1000 * timeoutSeconds),
    }).catch((error: Error) => error);
    if (response instanceof Error) return { wait: { reason: `${server} does not answer (${response.message})` } };
    const text = await response.text().catch(() => "");
    if (!response.ok) return { wait: refusal(response, text) };
    const { choices, usage } = parseReply(text);
    const cost =
      ((usage?.prompt_tokens ?? 0) * pricePerMillion.input + (usage?.completion_tokens ?? 0) * pricePerMillion.output) /
      1e6;
    return { ok: { content: choices[0].message.content, cost } };
  }
}

/** The body of a request: also what an answer is remembered by. */
function requestBody<Answer>({ model, text, images = [], schema }: Question<Answer>): string {
  const pictures = images.flatMap(({ label, png }) => [
    { type: "text", text: label },
    { type: "image_url", image_url: { url: `data:image/png;base64,${Buffer.from(png).toString("base64")}` } },
  ]);
  const content = images.length > 0 ? [{ type: "text", text }, ...pictures] : text;
  const { $schema: _, ...shape } = z.toJSONSchema(schema) as Record<string, unknown>;
  return JSON.stringify({
    model,
    messages: [{ role: "user", content }],
    temperature: 0,
    seed: 1,
    response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema: shape } },
  });
}

/** Why to try again; throws where that would not help. */
function refusal(response: Response, text: string): { reason: string; afterMs?: number } {
  const said = text.replaceAll(/\s+/g, " ").slice(0, 300);
  const reason = `the server answered ${response.status}: ${said}`;
  if (/image/i.test(said) && /most|single|only|one|support/i.test(said) && response.status < 500)
    throw new TooManyImages(reason);
  if (response.status !== 429 && response.status < 500) throw new Error(reason);
  const seconds = Number(response.headers.get("retry-after"));
  return { reason, afterMs: seconds > 0 ? 1000 * Math.min(seconds, 300) : undefined };
}

function parseReply(text: string): z.output<typeof reply> {
  try {
    return reply.parse(JSON.parse(text));
  } catch {
    throw new Error(`the server's answer is not a chat completion: ${text.slice(0, 200)}`);
  }
}

/** Models without schemas like to wrap JSON into a fence, or into words. */
function parseAnswer<Answer>(content: string, schema: z.ZodType<Answer>): Answer {
  const json = content.slice(content.indexOf("{"), content.lastIndexOf("}") + 1);
  try {
    return schema.parse(JSON.parse(json));
  } catch {
    throw new Error(`the model did not answer as asked: ${content.replaceAll(/\s+/g, " ").slice(0, 200)}`);
  }
}

/** What a question will cost, about: four characters a token. */
export function estimate(characters: number, images: number, { pricePerMillion }: AnnotateConfig): number {
  const input = characters / 4 + images * IMAGE_TOKENS;
  return (input * pricePerMillion.input + ANSWER_TOKENS * pricePerMillion.output) / 1e6;
}
