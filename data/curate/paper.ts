// What the VSD2M paper prints about its data (arXiv 2412.08259): Tables 2 and 3, and Figure 4 as read off its bars, to within
// about 300 counts. Shown beside the numbers of a data set made here.

export interface DatasetFacts {
  readonly dataset: string;
  readonly size: string;
  readonly modality: string;
  readonly language: string;
  readonly trigger_words: boolean;
  readonly ocr: boolean;
  readonly domain: boolean;
}

const row = (dataset: string, size: string, modality: string, language: string, ...marks: boolean[]): DatasetFacts => ({
  dataset,
  size,
  modality,
  language,
  trigger_words: marks[0],
  ocr: marks[1],
  domain: marks[2],
});

export const TABLE_2: readonly DatasetFacts[] = [
  row("TGIF", "100K", "GIFs, description", "En", false, false, false),
  row("MOD", "45K", "static", "", false, false, false),
  row("SRS", "320K", "static", "", false, false, false),
  row("SER30K", "30K", "static", "En", true, false, true),
  row("Sticker820K", "820K", "static, description", "En", true, true, false),
  row("VSD2M", "2.09M", "static, GIFs, description", "En, Cn", true, true, true),
];

export const TABLE_3 = {
  multi_frame_ratio: 0.519,
  optical_character_ratio: 0.552,
  average_frames: 16.91,
  cartoon_ratio: 0.456,
  average_trigger_words: 36.1,
  average_description_length: 104.01,
} as const;

/** A bar: its label and how many. */
export type Bar = readonly [label: string, count: number];

/** Figure 4 (b): stickers of several frames by their number of frames. */
export const FRAME_BINS: readonly number[] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140];
/** Figure 4 (d): descriptions by their length. */
export const LENGTH_BINS: readonly number[] = Array.from({ length: 20 }, (_, i) => 10 * (i + 1));

const counts = (thousands: string): number[] => thousands.split(" ").map((n) => Math.round(1000 * Number(n)));

export const FIGURE_4 = {
  frames: counts("284.9 294.8 207.8 115.5 74.6 47.3 31.3 24.2 16.7 13.4 9.2 7.3 5.4 4 20.9"),
  lengths: counts("6.9 8 11 14 33.9 63.6 98.7 112.1 106.7 94.7 83.5 69 53 38.4 26.7 18.5 12.8 9.6 7.2 5.6 23.3"),
  triggers: bars(
    "Good Night 57.7, OK 47.2, Thanks 38.9, Love you 36.3, Angry 32.9, Come on 32.1, Happy 29.8, Speechless 26.9, Goodbye 26.4, Snort 21.9, Hahaha 21.9, Are you there 19.8, Hand heart 18.7, Haha 18.2, Grievance 17.4, I am coming 17.3, Hug 16.3, Approve 16.2, Cry 16.2, Shy 16.2, What 15.4, Good morning 14.6, Kiss 14.2, Get 14.1, Hello 14",
  ),
  words: bars(
    "video 132.2, cartoon 132, character 106.4, white 106.4, black 76.8, image 68.1, holding 67.4, panda 50.4, which 49.1, red 43.6, background 39.5, face 39.3, action 38.9, features 38.5, hand 36.5, expression 36.1, wearing 35.1, pink 32.3, appears 32.1, looking 30.8, shows 30.8, character's 30.6, mouth 29.9, bear 28.9, sense 27.6",
  ),
} as const;

function bars(text: string): Bar[] {
  return text.split(", ").map((part) => {
    const at = part.lastIndexOf(" ");
    return [part.slice(0, at), Math.round(1000 * Number(part.slice(at + 1)))];
  });
}
