// A part of a data set as a data set: the stickers of one domain. Called by the commands that train.

import { sha256Json } from "./hash.ts";
import { DEFAULT_DOMAIN, type Domain } from "./record.ts";
import type { Dataset } from "./store.ts";

/**
 * The records of `domain`; a record that names none counts as the default one. Closing it closes `data`.
 * @throws Error when there is none
 */
export function ofDomain(data: Dataset, domain: Domain): Dataset {
  const kept = data.records.flatMap((record, i) => ((record.domain ?? DEFAULT_DOMAIN) === domain ? [i] : []));
  if (kept.length === 0)
    throw new Error(
      `none of the ${data.length} stickers is of the domain ${domain}: see the field domain in metadata.jsonl`,
    );
  if (kept.length === data.length) return data;
  return {
    length: kept.length,
    records: kept.map((i) => data.records[i]),
    captions: kept.map((i) => data.captions[i]),
    rejected: data.rejected,
    fingerprint: sha256Json([data.fingerprint, kept]),
    frame: (i) => data.frame(kept[i] ?? -1),
    batch: (indices) => data.batch(indices.map((i) => kept[i] ?? -1)),
    close: data.close,
  };
}
