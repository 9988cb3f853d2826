// The stage "domain" as a process of its own, for curate_kill.test.ts to kill: a classifier that needs no GPU and says of how
// many stickers it was asked. Arguments: the data set, the file that gets a byte for each question.

import { appendFileSync } from "node:fs";
import { Collection, openCollection } from "../../data/curate/collection.ts";
import { runStage, type Stage } from "../../data/curate/stage.ts";
import { type DomainClassifiers, domainStage } from "../../data/curate/stages/domain.ts";

const [dir, asked] = process.argv.slice(2);

const classifiers: DomainClassifiers = {
  identity: () => "by the length of files",
  open: async () => ({
    classify: async (bytes) => {
      appendFileSync(asked, ".");
      return { domain: bytes.length % 2 === 0 ? "Cartoon" : "Real", score: 0.75 };
    },
    close: () => {},
  }),
};

const { config } = await openCollection(dir);
const told = { ...config, annotate: { ...config.annotate, domainModel: "none" } };
await runStage(new Collection(dir, told), domainStage(classifiers) as unknown as Stage);
