// A strict reader of trace files: the Trace Event Format as far as the engine writes it (complete events, asynchronous pairs,
// metadata), and what viewers silently mend or drop: spans of one track that overlap without nesting.

const PHASES = ["X", "b", "e", "M"];
const METADATA = ["process_name", "thread_name"];

type Event = Record<string, unknown>;

/** What is wrong with the text of a trace file; empty when it is sound. */
export function traceProblems(text: string): string[] {
  const file = JSON.parse(text) as { traceEvents?: unknown; displayTimeUnit?: unknown };
  if (!Array.isArray(file.traceEvents)) return ["traceEvents is not a list"];
  const events = file.traceEvents as Event[];
  return [
    ...(file.displayTimeUnit === "ms" || file.displayTimeUnit === "ns" ? [] : ["displayTimeUnit is neither ms nor ns"]),
    ...events.flatMap((e, i) => eventProblems(e).map((p) => `event ${i}: ${p}`)),
    ...pairProblems(events),
    ...nestingProblems(events),
  ];
}

function eventProblems(e: Event): string[] {
  const numbers = [
    "ts",
    "pid",
    "tid",
    ...(e.ph === "X" ? ["dur"] : []),
    ...(e.ph === "b" || e.ph === "e" ? ["id"] : []),
  ];
  const named =
    e.ph === "M" ? METADATA.includes(e.name as string) && typeof (e.args as Event)?.name === "string" : true;
  return [
    ...(PHASES.includes(e.ph as string) ? [] : [`unknown phase ${e.ph}`]),
    ...(typeof e.name === "string" && e.name !== "" ? [] : ["no name"]),
    ...numbers.filter((k) => !Number.isFinite(e[k])).map((k) => `${k} is not a number`),
    ...(e.ph === "X" && (e.dur as number) < 0 ? ["negative duration"] : []),
    ...(named ? [] : ["metadata without a name"]),
  ];
}

/** Every "b" has one later "e" of the same category and id. */
function pairProblems(events: readonly Event[]): string[] {
  const open = new Map<string, number>();
  const found: string[] = [];
  for (const e of events
    .filter((x) => x.ph === "b" || x.ph === "e")
    .sort((a, b) => (a.ts as number) - (b.ts as number))) {
    const key = `${e.cat} ${e.id}`;
    if (e.ph === "b" && open.has(key)) found.push(`${key} begins twice`);
    if (e.ph === "b") open.set(key, e.ts as number);
    else if (!open.delete(key)) found.push(`${key} ends before it begins`);
  }
  return [...found, ...[...open.keys()].map((k) => `${k} never ends`)];
}

/** Complete events of a track lie beside or inside each other. */
function nestingProblems(events: readonly Event[]): string[] {
  const tracks = new Map<string, Event[]>();
  for (const e of events.filter((x) => x.ph === "X")) {
    const track = `${e.pid}/${e.tid}`;
    tracks.set(track, [...(tracks.get(track) ?? []), e]);
  }
  return [...tracks].flatMap(([track, list]) => {
    const ends: number[] = [];
    const sorted = list
      .map((e) => ({ name: e.name, start: e.ts as number, end: (e.ts as number) + (e.dur as number) }))
      .sort((a, b) => a.start - b.start || b.end - a.end);
    return sorted.flatMap(({ name, start, end }) => {
      while (ends.length > 0 && ends[ends.length - 1] <= start + 1e-3) ends.pop();
      const outer = ends.at(-1) ?? Number.POSITIVE_INFINITY;
      ends.push(end);
      return end > outer + 1e-3 ? [`${name} on track ${track} overlaps what it began in`] : [];
    });
  });
}
