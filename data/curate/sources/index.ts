// The kinds of sources: what the configuration calls them, and who reads them.

import type { SourceConfig } from "../config.ts";
import { archiveEntries } from "./archive.ts";
import { folderEntries } from "./folder.ts";
import { searchEntries } from "./search.ts";
import type { Reading, SourceEntry } from "./source.ts";
import { tableEntries } from "./table.ts";

/** The entries of a source, in an order that depends on nothing but the source. Throws when it cannot be read at all. */
export function sourceEntries(source: SourceConfig, reading: Reading): AsyncGenerator<SourceEntry> {
  switch (source.type) {
    case "folder":
      return folderEntries(source, reading);
    case "archive":
      return archiveEntries(source, reading);
    case "table":
      return tableEntries(source);
    case "search":
      return searchEntries(source, reading);
  }
}
