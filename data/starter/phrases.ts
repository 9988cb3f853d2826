// What stickers say: the English and Chinese phrases drawn on them, and how wide each is.
// The bundled font (assets/) holds exactly these characters and printable ASCII: extend both together.
// Called by plan.ts (which phrase fits) and lettering.ts (drawing it).

export type TextLang = "en" | "zh";

export interface Phrase {
  readonly text: string;
  readonly lang: TextLang;
}

const EN = [
  ..."OK!|HI!|HELLO!|WOW!|YES!|NO!|LOL|OMG|YAY!|GO!|BYE!|NICE!|COOL!|LOVE|HUGS|YUM!|OOPS!|SORRY|THANKS!|PLEASE".split(
    "|",
  ),
  ..."BRAVO!|HAPPY|RELAX|WELCOME|HURRY UP|MISS YOU|GOOD JOB|GOOD LUCK|GOOD NIGHT|GOOD MORNING|HAPPY BIRTHDAY".split(
    "|",
  ),
];

const ZH = [
  ..."你好|早上好|晚安|谢谢|加油|好的|哈哈|收到|再见|厉害|拜托|抱抱|开心|想你|冲呀|好吃|快点|无语|比心|恭喜".split("|"),
  ..."对不起|没问题|太棒了|辛苦了|别难过|我爱你|等等我|真的吗|生气了|生日快乐|新年快乐|恭喜发财|节日快乐".split("|"),
];

export const PHRASES: readonly Phrase[] = [
  ...EN.map((text) => ({ text, lang: "en" as const })),
  ...ZH.map((text) => ({ text, lang: "zh" as const })),
];

/** Width in ems, from the font's typical advances: a full square for Chinese, about two thirds for bold capitals. */
export function widthInEms(text: string): number {
  let ems = 0;
  for (const char of text) ems += char > "\u2e7f" ? 1 : /[ !IJ,.']/.test(char) ? 0.36 : 0.7;
  return ems;
}
