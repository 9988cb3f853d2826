// The kinds of sources: what the configuration calls them, and who reads them.

import type { SourceConfig } from "../config.ts";
import type { Fetcher } from "../fetch.ts";
import { archiveEntries } from "./archive.ts";
import { folderEntries } from "./folder.ts";
import { searchEntries } from "./search.ts";
import type { SourceEntry } from "./source.ts";
import { tableEntries } from "./table.ts";

/** The entries of a source, in an order that depends on nothing but the source. Throws when it cannot be read at all. */
export function sourceEntries(source: SourceConfig, fetcher: Fetcher): AsyncGenerator<SourceEntry> {
  switch (source.type) {
    case "folder":
      return folderEntries(source);
    case "archive":
      return archiveEntries(source);
    case "table":
      return tableEntries(source);
    case "search":
      return searchEntries(source, fetcher);
  }
}
