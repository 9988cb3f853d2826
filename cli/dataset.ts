// The commands of `gifgrad dataset`: open the data set, run a stage, say what came of it. What stages do is in data/curate.

import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { dataCard } from "../data/curate/card.ts";
import { Collection, checkBuild, createCollection, openCollection } from "../data/curate/collection.ts";
import { type CurateConfig, configSchema, parseConfig } from "../data/curate/config.ts";
import {
  filterTable,
  NOT_COLLECTED,
  notCollected,
  recordsTable,
  unknownDomains,
  verdicts,
  wordsTable,
} from "../data/curate/derived.ts";
import { editsTable } from "../data/curate/edits.ts";
import { beginExport } from "../data/curate/export/begin.ts";
import { dataFiles } from "../data/curate/export/data_files.ts";
import { exportImagefolder } from "../data/curate/export/imagefolder.ts";
import { exportParquet } from "../data/curate/export/parquet.ts";
import { exported } from "../data/curate/export/rows.ts";
import { exportWebDataset } from "../data/curate/export/webdataset.ts";
import { sweep } from "../data/curate/files.ts";
import { history } from "../data/curate/history.ts";
import { mergeInto } from "../data/curate/merge.ts";
import { MISSING, recogniserInstalled } from "../data/curate/ocr.ts";
import { planBuild } from "../data/curate/plan.ts";
import { contactSheet, type Shown } from "../data/curate/sheet.ts";
import { splitTable } from "../data/curate/split.ts";
import { dryRun, runStage, type Stage, type StageResult, sealStage } from "../data/curate/stage.ts";
import { stages } from "../data/curate/stages/index.ts";
import { statistics } from "../data/curate/stats.ts";
import { type SampleSheet, statsPage } from "../data/curate/stats_page.ts";
import { table, text, withDatabase } from "../data/curate/tables.ts";
import { prune, rememberTables, verify } from "../data/curate/verify.ts";
import { readConfiguration } from "../data/json_config.ts";
import { openLabelled } from "../data/labelled.ts";
import { DOMAINS } from "../data/record.ts";
import { openDataset } from "../data/store.ts";
import { replaceFile } from "../engine/atomic.ts";
import { openDevice } from "../engine/index.ts";
import { domainClassifiers, FRAMES, trainDomain } from "../train/domain.ts";
import { exitCode } from "../train/log.ts";
import { progress } from "../train/progress.ts";
import type {
  CacheOptions,
  ExportOptions,
  ShowOptions,
  StageCommandOptions,
  TrainDomainOptions,
  VerifyOptions,
} from "./dataset_commands.ts";

const STAGES = stages(domainClassifiers);

/** Build's --dry-run. */
export async function plan(configPath: string, out: string): Promise<void> {
  const collection = await unmade(configPath, out);
  for (const one of await planBuild(collection, [...STAGES.before, ...STAGES.after])) {
    const { stage: name, items, bound, more, cost } = one;
    const upTo = bound ? ", at most: its tables are not made yet" : "";
    tell(items, `${name}${more ? ", and what searches find" : ""}${upTo}${estimated(cost)}`);
    for (const note of one.notes) console.log(`           ${note}`);
  }
}

function estimated(cost: number | null): string {
  return cost === null ? "" : `, about ${cost.toFixed(2)} by annotate.pricePerMillion`;
}

export async function build(configPath: string, out: string): Promise<void> {
  const collection = await configured(configPath, out);
  const { config } = collection;
  if (config.annotate.ocr === "auto" && !recogniserInstalled()) console.error(`note: ${MISSING}`);
  for (const one of STAGES.before) {
    if (!(await runOne(collection, one, {}))) return;
  }
  await filterTable(collection);
  for (const one of STAGES.after) {
    if (!(await runOne(collection, one, {}))) return;
  }
  await derive(collection);
  await splitUp(collection);
  await rememberTables(collection);
  await stats(out, out);
  const [{ bare, kept }] = await withDatabase((db) =>
    db.all(
      `SELECT count(*) FILTER (caption IS NULL)::INT AS bare, count(*)::INT AS kept FROM ${table(collection, "records")}`,
    ),
  );
  if ((bare as number) > 0) console.log(`${bare} of ${kept} have no caption. ${captionsFrom(config)}`);
}

/** As `configured`, for those who only look: nothing is written. */
async function unmade(configPath: string, out: string): Promise<Collection> {
  return new Collection(resolve(out), await readConfig(configPath, out));
}

/** The data set in `out`, made if there is none, under the configuration in a file. Of many `shards` that do so none tidies up. */
async function configured(configPath: string, out: string, shards = false): Promise<Collection> {
  return createCollection(out, await readConfig(configPath, out), shards);
}

async function readConfig(configPath: string, out: string): Promise<CurateConfig> {
  const config = parseConfig(await readConfiguration(configPath), configPath, dirname(resolve(configPath)));
  await checkBuild(out, config, configPath);
  return config;
}

/** What a user does about stickers without a caption. */
function captionsFrom({ annotate: { server } }: CurateConfig): string {
  const model = server
    ? "the model at annotate.server, asked by the stages describe and summarise"
    : "a model: annotate.server";
  return `Captions come from a metadata.jsonl in the source, from a table's column, or from ${model}`;
}

export async function stage(dir: string, name: string, o: StageCommandOptions): Promise<void> {
  if (o.dryRun) {
    const collection = o.config ? await unmade(o.config, dir) : await openCollection(dir);
    const { items, cost, notes, unasked } = await dryRun(collection, named(name), o.shard);
    console.log(
      `${name}: ${items} items to do${unasked.length > 0 ? ", and what searches find" : ""}${estimated(cost)}`,
    );
    for (const line of [...notes, ...unasked]) console.log(`  ${line}`);
    return;
  }
  const collection = o.config ? await configured(o.config, dir, o.shard !== undefined) : await openCollection(dir);
  await runOne(collection, named(name), o);
  await rememberTables(collection);
}

export async function filter(dir: string): Promise<void> {
  const collection = await openCollection(dir);
  await filterTable(collection);
  await derive(collection);
  await rememberTables(collection);
}

export async function split(dir: string): Promise<void> {
  const collection = await openCollection(dir);
  await splitUp(collection);
  await rememberTables(collection);
}

const SPLIT_NAMES: Readonly<Record<string, string>> = {
  train: "for training",
  "VSD-R": "test stickers, Real (VSD-R)",
  "VSD-C": "test stickers, Cartoon (VSD-C)",
  "held-out": "held out: pairs of subject and action that training does not show (split.heldOutPairs)",
  excluded: "excluded: like a test sticker (within split.apartBits)",
};

async function splitUp(collection: Collection): Promise<void> {
  const { counts, warnings } = await splitTable(collection);
  for (const [split, count] of Object.entries(counts)) tell(count, SPLIT_NAMES[split]);
  for (const warning of warnings) console.error(`warning: ${warning}`);
}

export async function merge(dir: string, name: string, from: readonly string[]): Promise<void> {
  const collection = await openCollection(dir);
  for (const other of from) await mergeInto(collection, await openCollection(other), name);
  const missing = await sealStage(collection, named(name));
  await rememberTables(collection);
  console.log(missing === 0 ? `${name}: the table is complete` : `${name}: ${missing} items have not been done yet`);
}

/** Samples on the statistics page, and how they are drawn: the same ones every time. */
const SAMPLES = 36;

export async function stats(dir: string, out: string): Promise<void> {
  const collection = await openCollection(dir);
  const found = await statistics(collection);
  const sheets: SampleSheet[] = [];
  for (const domain of ["Cartoon", "Real"]) {
    const shown = await samples(
      `${table(collection, "records")} WHERE domain = '${domain}'`,
      "coalesce(caption, '')",
      SAMPLES,
    );
    if (shown.length > 0) sheets.push({ title: `${domain} samples`, png: await contactSheet(collection, shown) });
  }
  await mkdir(out, { recursive: true });
  await sweep(out, "stats.");
  const page = join(out, "stats.html");
  await replaceFile(join(out, "stats.json"), (file) => file.writeFile(`${JSON.stringify(found, null, 2)}\n`));
  await replaceFile(page, (file) => file.writeFile(statsPage(found, sheets)));
  console.log(`${found.stickers} stickers; ${page}`);
}

export async function show(dir: string, { rejected, count, out }: ShowOptions): Promise<void> {
  const collection = await openCollection(dir);
  if (rejected === NOT_COLLECTED) return listNotCollected(collection, count);
  const formats = `(SELECT id, min(format) AS format FROM ${table(collection, "collect")} GROUP BY id)`;
  const from = rejected
    ? `${table(collection, "filter")} f JOIN ${formats} c USING (id) WHERE reason = ${text(rejected)}`
    : table(collection, "records");
  const measured =
    "coalesce(value::INT || ' bits from ' || left(duplicate_of, 8), round(value, 2)::VARCHAR, left(id, 12))";
  const label = rejected ? measured : "coalesce(caption, '')";
  const shown = await samples(from, label, count);
  const sheet = await contactSheet(collection, shown);
  await mkdir(dirname(out), { recursive: true });
  await replaceFile(out, (file) => file.writeFile(sheet));
  console.log(`${out}: ${shown.length} stickers`);
}

/** There is no picture of them. */
async function listNotCollected(collection: Collection, count: number): Promise<void> {
  const rows = await withDatabase((db) =>
    db.all(`SELECT source, entry, error, count(*) OVER ()::INT AS total FROM ${table(collection, "collect")}
      WHERE id IS NULL ORDER BY source, entry LIMIT ${count}`),
  );
  for (const { source, entry, error } of rows) console.log(`${source}: ${entry}: ${error}`);
  console.log(`${rows.length} of ${rows[0]?.total ?? 0} entries that could not be taken`);
}

/** Some stickers, drawn by the hash of their names. */
async function samples(from: string, label: string, count: number): Promise<Shown[]> {
  const rows = await withDatabase((db) =>
    db.all(`SELECT id, format, ${label} AS label FROM ${from} ORDER BY md5(id) LIMIT ${count}`),
  );
  return rows.map((row) => ({ id: String(row.id), format: String(row.format), label: String(row.label) }));
}

export async function exportTo(dir: string, { format, out, strips }: ExportOptions): Promise<void> {
  const collection = await openCollection(dir);
  const [{ leaving }] = await withDatabase((db) =>
    db.all(`SELECT count(*)::INT AS leaving FROM ${exported(collection)}`),
  );
  if (leaving === 0)
    throw new Error(`export: no sticker of ${dir} has a caption or a trigger word. ${captionsFrom(collection.config)}`);
  const finish = await beginExport(collection, out, { format, strips: strips === true });
  const line = progress(format, 0);
  const onProgress = (done: number): void => line.update(done);
  const count = await {
    imagefolder: () => exportImagefolder(collection, out, { strips, onProgress }),
    webdataset: () => exportWebDataset(collection, out, { onProgress }),
    parquet: () => exportParquet(collection, out, { onProgress }),
  }[format]();
  await replaceFile(join(out, "README.md"), async (file) =>
    file.writeFile(dataCard(await statistics(collection), collection.config, await dataFiles(out))),
  );
  await finish();
  line.done();
  console.log(`${out}: ${count} stickers`);
}

export async function verifyAll(dir: string, o: VerifyOptions): Promise<void> {
  const collection = await openCollection(dir);
  const line = progress("verify", 0);
  const unlisted: string[] = [];
  let faults = 0;
  for await (const { path, fault } of verify(collection, (done, total) => line.update(done, "", total))) {
    if (fault === "not in any table") unlisted.push(path);
    if (fault === "not in any table" && o.prune) continue;
    console.log(`${fault}: ${path}`);
    faults++;
  }
  line.done();
  if (o.prune) {
    await prune(collection, unlisted);
    for (const path of unlisted) console.log(`removed: ${path}`);
  }
  const clear =
    unlisted.length > 0 && !o.prune ? `; --prune removes the ${unlisted.length} that are not in any table` : "";
  if (faults > 0) throw new Error(`${dir}: ${faults} files are not as they should be${clear}`);
  console.log(`${dir}: every file is as it was`);
}

/** What training would do at its start: on a machine without a GPU, say, before one is rented. */
export async function cache(dir: string, o: CacheOptions): Promise<void> {
  const line = progress("decode", 0);
  const data = await openDataset(dir, { ...o, onProgress: (done, total) => line.update(done, "", total) });
  line.done();
  const rejected = data.rejected.length > 0 ? `; ${data.rejected.length} cannot be used, see rejected.jsonl` : "";
  console.log(`${join(dir, ".gifgrad")}: ${data.length} stickers, ${o.frames} frames of ${o.size} pixels${rejected}`);
  data.close();
}

export async function trainDomainOn(dir: string, o: TrainDomainOptions): Promise<void> {
  const line = progress("decode", 0);
  const { size, heldOut } = o;
  const data = await openLabelled(dir, {
    size,
    frames: FRAMES,
    heldOut,
    onProgress: (done, total) => line.update(done, "", total),
  });
  line.done();
  if (data.rejected.length > 0) console.error(`${data.rejected.length} stickers cannot be used`);
  const device = await openDevice();
  try {
    const { report, stopped } = await trainDomain({ ...o, data });
    if (report) {
      const percent = (100 * report.accuracy).toFixed(1);
      console.log(`${percent} % of ${report.stickers} held-out stickers are told right`);
      for (const is of DOMAINS) {
        const taken = DOMAINS.map((as) => `${report.confusion[is][as]} taken for ${as}`);
        console.log(`  ${is.padEnd(8)} ${taken.join(", ")}`);
      }
    }
    if (stopped) process.exitCode = exitCode(stopped);
  } finally {
    device.close();
    data.close();
  }
}

export async function tellHistory(dir: string, id: string): Promise<void> {
  for (const origin of await history(await openCollection(dir), id, STAGES.all)) console.log(JSON.stringify(origin));
}

export function schema(): void {
  console.log(JSON.stringify(configSchema(), null, 2));
}

function named(name: string): Stage {
  return STAGES.all.find((one) => one.name === name)!;
}

/** Runs a stage with a line of progress; Ctrl-C finishes what is in hand. Returns whether it came to its end. */
async function runOne(collection: Collection, one: Stage, { shard, again }: StageCommandOptions): Promise<boolean> {
  const stop = new AbortController();
  const interrupt = (): void => stop.abort();
  process.once("SIGINT", interrupt);
  const line = progress(one.name, 0);
  try {
    const result = await runStage(collection, one, {
      shard,
      again,
      signal: stop.signal,
      onProgress: (done, total, note) => line.update(done, note, total),
    });
    line.done(result.before > 0 ? `${result.before} were done before` : "");
    for (const note of result.notes) console.error(`  ${note}`);
    for (const reason of result.putOff.slice(0, 3)) console.error(`  put off: ${reason}`);
    if (result.putOff.length > 0) console.error(`  ${result.putOff.length} put off; run it again to try them again`);
    if (one.cost) await tellUnanswered(collection, one, result);
    if (result.interrupted) console.error("stopped; the same command goes on from here");
    return !result.interrupted;
  } finally {
    process.off("SIGINT", interrupt);
  }
}

/** A data set that lacks answers is not what was asked for, and scripts are told so. */
async function tellUnanswered(collection: Collection, { name }: Stage, { putOff, sealed }: StageResult): Promise<void> {
  if (putOff.length > 0) process.exitCode = 1;
  if (!sealed) return;
  const [{ failed, some }] = await withDatabase((db) =>
    db.all(
      `SELECT count(error)::INT AS failed, any_value(error) AS some FROM ${table(collection, name)} WHERE error IS NOT NULL`,
    ),
  );
  if ((failed as number) === 0) return;
  console.error(`  ${failed} have no answer, e.g. ${some}`);
  console.error(`  "gifgrad dataset ${name} DIR --again" asks again, and so does another model`);
}

/** The tables that follow from the filter's and the annotators'. */
async function derive(collection: Collection): Promise<void> {
  const twice = await editsTable(collection);
  if (twice > 0)
    tell(twice, `lines of ${collection.config.annotate.edits} edit a sticker again: the last of each field holds`);
  await recordsTable(collection);
  await wordsTable(collection);
  const { maxAspect, minEntropy, nearDuplicateBits } = collection.config.filter;
  const why: Readonly<Record<string, string>> = {
    aspect: ` (over filter.maxAspect, ${maxAspect})`,
    entropy: ` (below filter.minEntropy, ${minEntropy} bits)`,
    text: " (over filter.maxTextCharacters or maxTextArea)",
    "near-duplicate": ` (within filter.nearDuplicateBits, ${nearDuplicateBits} of 256)`,
    [NOT_COLLECTED]: ` (entries of sources; dataset show --rejected ${NOT_COLLECTED} lists them)`,
  };
  for (const [verdict, count] of await verdicts(collection)) {
    tell(count, `${verdict}${why[verdict] ?? ""}`);
    if (verdict !== NOT_COLLECTED) continue;
    for (const [reason, entries] of await notCollected(collection, 5)) tell(entries, `  ${reason}`);
  }
  const unknown = await unknownDomains(collection);
  if (unknown.size === 0) return;
  const said = [...unknown].slice(0, 5).map(([domain, count]) => `${JSON.stringify(domain)} ${count}`);
  const more = unknown.size > said.length ? ", ..." : "";
  const neither = `neither ${DOMAINS.join(" nor ")} (${said.join(", ")}${more})`;
  console.log(
    `Sources name domains that are ${neither}: such a sticker has none, unless annotate.domainModel tells it`,
  );
}

function tell(count: number, what: string): void {
  console.log(`${String(count).padStart(9)}  ${what}`);
}
