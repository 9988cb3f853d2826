#!/usr/bin/env node
// `npm run check:deep`: everything is in main.ts.

import { join } from "node:path";
import { root } from "../../cli/environment.mjs";
import { startMain } from "../start_main.mjs";

process.env.DEEP_STATE ??= join(root, ".cache", "deep", "state.json");
await startMain("deep");
