// A client of servers that speak the OpenAI chat dialect (Ollama, vLLM, llama.cpp, ...): pictures and text in, JSON after a schema
// out. Answers are kept by everything that led to them, so nothing is paid for twice; a budget ends the work, not the data set. It is
// that of the whole data set, and what every run has spent is on record (ledger.ts).

import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import { replaceFile } from "../../engine/atomic.ts";
import { sha256 } from "../hash.ts";
import type { CurateConfig } from "./config.ts";
import { Ledger } from "./ledger.ts";
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

/**
 * The server refuses whatever it is asked: the key, the address or the model is wrong. Nothing is known of the item, so that
 * this ends the stage; where things were put right, the same command goes on.
 */
export class Refused extends Error {
  override readonly name: string = "Refused";
}

/** The server takes one picture a message, or none at all. */
export class TooManyImages extends Refused {
  override readonly name = "TooManyImages";
}

/** Raised in place of a question when the budget is spent. Everything that was answered is kept. */
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
  readonly #ledger: Ledger;

  /** `cache`: a folder for answers; `ledger`: one for what was spent. Close it. */
  constructor(config: AnnotateConfig, cache: string, ledger: string) {
    this.#config = config;
    this.#cache = cache;
    this.#ledger = new Ledger(ledger);
  }

  async close(): Promise<void> {
    await this.#ledger.close();
  }

  /**
   * @throws NotNow when the server is away after all retries; Refused when it takes no question at all; TooManyImages;
   * BudgetSpent; Error when it refuses this question, or after all retries still does not answer after the schema
   */
  async ask<Answer>(question: Question<Answer>): Promise<Answer> {
    const path = join(this.#cache, `${sha256(requestBody(question))}.json`);
    if (existsSync(path)) return parseAnswer(await readFile(path, "utf8"), question.schema);
    const asking = this.#asking.get(path) ?? this.#fresh(question, path).finally(() => this.#asking.delete(path));
    this.#asking.set(path, asking);
    return parseAnswer(await asking, question.schema);
  }

  /** Asks the server and remembers the answer in a file, if it is one. Otherwise another seed may bring one. */
  async #fresh(question: Question<unknown>, path: string): Promise<string> {
    const { budget } = this.#config;
    for (let attempt = 0; ; attempt++) {
      // What is in hand, here and on other machines, is still paid.
      if (budget !== undefined && (await this.#ledger.spent()) >= budget)
        throw new BudgetSpent(`the budget of ${budget} is spent: raise annotate.budget and run this again`);
      const { content, cost } = await this.#patiently(requestBody(question, 1 + attempt));
      await this.#ledger.pay(question.model, cost);
      try {
        parseAnswer(content, question.schema);
      } catch (error) {
        if (attempt >= this.#config.retries) throw error;
        continue;
      }
      await mkdir(this.#cache, { recursive: true });
      await replaceFile(path, (file) => file.writeFile(content));
      return content;
    }
  }

  async #patiently(body: string): Promise<Reply> {
    for (let attempt = 0; ; attempt++) {
      const said = await this.#once(body);
      if ("content" in said) return said;
      if (attempt >= this.#config.retries) throw new NotNow(said.reason);
      await sleep(said.afterMs ?? 500 * 2 ** attempt);
    }
  }

  async #once(body: string): Promise<Reply | Wait> {
    const { server, keyFrom, timeoutSeconds, pricePerMillion } = this.#config;
    const key = process.env[keyFrom];
    const response = await fetch(`${server?.replace(/\/$/, "")}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
      body,
      signal: AbortSignal.timeout(1000 * timeoutSeconds),
    }).catch((error: Error) => error);
    if (response instanceof Error) return { reason: `${server} does not answer (${response.message})` };
    const text = await response.text().catch(() => "");
    if (!response.ok) return refusal(response, text, this.#config);
    const parsed = parseReply(text);
    if (!parsed) return { reason: `${server} answers with what is not a chat completion: ${oneLine(text)}` };
    const { choices, usage } = parsed;
    const cost =
      ((usage?.prompt_tokens ?? 0) * pricePerMillion.input + (usage?.completion_tokens ?? 0) * pricePerMillion.output) /
      1e6;
    return { content: choices[0].message.content, cost };
  }
}

interface Reply {
  readonly content: string;
  readonly cost: number;
}

/** Why to try again, and how soon. */
interface Wait {
  readonly reason: string;
  readonly afterMs?: number;
}

/** The body of a request: the first is also what an answer is remembered by. */
function requestBody<Answer>({ model, text, images = [], schema }: Question<Answer>, seed = 1): string {
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
    seed,
    response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema: shape } },
  });
}

/** Statuses that speak of the question and not of whoever asks, nor of the server. */
const OF_THE_QUESTION = [400, 413, 422];
const LATER = [408, 425, 429];

/** Why to try again; throws where that would not help. */
function refusal(response: Response, text: string, { server, keyFrom }: AnnotateConfig): Wait {
  const { status } = response;
  const reason = `${server} answers ${status}: ${oneLine(text)}`;
  if (status >= 500 || LATER.includes(status)) {
    const seconds = Number(response.headers.get("retry-after"));
    return { reason, afterMs: seconds > 0 ? 1000 * Math.min(seconds, 300) : undefined };
  }
  if (OF_THE_QUESTION.includes(status)) {
    if (/image/i.test(text) && /most|single|only|one|support/i.test(text))
      throw new TooManyImages(`${reason}; annotate.images says how frames are shown, annotate.visionModel to whom`);
    throw new Error(reason);
  }
  const key = process.env[keyFrom] ? `the key in ${keyFrom}` : `its key (${keyFrom} is not set)`;
  throw new Refused(`${reason}; check annotate.server, its models and ${key}, then run this again`);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").slice(0, 300);
}

function parseReply(text: string): z.output<typeof reply> | null {
  try {
    return reply.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** Models without schemas like to wrap JSON into a fence, or into words. */
function parseAnswer<Answer>(content: string, schema: z.ZodType<Answer>): Answer {
  const json = content.slice(content.indexOf("{"), content.lastIndexOf("}") + 1);
  try {
    return schema.parse(JSON.parse(json));
  } catch {
    throw new Error(`the model did not answer as asked: ${oneLine(content)}`);
  }
}

/** What a question will cost, about: four characters a token. */
export function estimate(characters: number, images: number, { pricePerMillion }: AnnotateConfig): number {
  const input = characters / 4 + images * IMAGE_TOKENS;
  return (input * pricePerMillion.input + ANSWER_TOKENS * pricePerMillion.output) / 1e6;
}
