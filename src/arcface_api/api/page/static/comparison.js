// What the similarity of two faces means, as far as the pack's thresholds say. Never a verdict without its error rate.

import { announce, el } from "./dom.js";
import { scale, separateMarks } from "./draw.js";
import { similarity } from "./service.js";
import { number, rich, t } from "./texts.js";

let last = null;

/** Fill the section with the comparison of both slots' answers; `again` embeds both pictures once more. */
export function comparison(section, slots, info, again) {
  const [one, other] = slots.map((slot) => slot.answer);
  const title = el("h2", { id: "similarity-title" }, t("similarity"));
  if (one.fingerprint !== other.fingerprint) {
    section.replaceChildren(
      title,
      el("div", { class: "note bad" }, el("p", {}, t("fingerprintsDiffer")), el("button", { type: "button", onclick: again }, t("embedAgain"))),
    );
    return;
  }
  const value = similarity(one.embedding, other.embedding);
  const thresholds = [...(info?.thresholds ?? [])].sort((a, b) => a.similarity - b.similarity);
  const drawn = scale(value, thresholds);
  section.replaceChildren(
    el(
      "div",
      { class: "verdict" },
      el("div", {}, title, el("p", { class: "figure" }, number(value, 3))),
      el("div", { class: "meaning" }, meaning(value, thresholds), caveats(one, other, thresholds)),
    ),
    drawn,
    ...(thresholds.length
      ? [table(value, thresholds), ...origins(thresholds), el("p", { class: "hint" }, t("seeThresholds"))]
      : []),
  );
  separateMarks(drawn);
  const pair = `${one.embedding[0]} ${other.embedding[0]}`;
  if (pair !== last) announce(t("announceSimilarity", { value: number(value, 3) }));
  last = pair;
}

function meaning(value, thresholds) {
  if (!thresholds.length) {
    return [
      el("p", { class: "says" }, rich("noThresholds")),
      el("p", { class: "hint" }, t("noThresholdsHow")),
      el("pre", { class: "small" }, el("code", {}, "arcface-api evaluate pairs.csv crops/")),
    ];
  }
  const passed = thresholds.filter((each) => value >= each.similarity).at(-1);
  const shown = passed ?? thresholds[0];
  const values = { one: number(1), n: number(1 / shown.far), threshold: number(shown.similarity, 3) };
  return [el("p", { class: "says" }, rich(passed ? "passed" : "passedNone", values)), el("p", { class: "hint" }, t("meaning"))];
}

function caveats(one, other, thresholds) {
  const answers = [one, other];
  const isAligned = answers.every((answer) => answer.alignment !== "none");
  const notes = [
    answers.some((answer) => answer.warnings?.length) && "hasWarnings",
    one.recipe !== other.recipe && "recipesDiffer",
    thresholds.length && !isAligned && "thresholdsAligned",
  ].filter(Boolean);
  return notes.length ? el("ul", { class: "caveats" }, notes.map((note) => el("li", {}, t(note)))) : null;
}

function table(value, thresholds) {
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ["thresholdHead", "thresholdRate", "thresholdPair"].map((name) => el("th", { scope: "col" }, t(name))))),
    el(
      "tbody",
      {},
      thresholds.map((each) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, number(each.similarity, 3)),
          el("td", {}, t("oneOf", { n: number(1 / each.far) })),
          el("td", {}, t(value >= each.similarity ? "above" : "below")),
        ),
      ),
    ),
  );
}

/** Where the thresholds come from, as far as the service says: how, on whose pairs, and where that is written. */
function origins(thresholds) {
  const seen = new Map(thresholds.map((each) => [`${each.basis} ${each.data_set} ${each.source}`, each]));
  return [...seen.values()].filter(({ basis }) => basis).map(({ basis, data_set: pairs, source }) =>
    el(
      "p",
      { class: "fine" },
      t(basis),
      pairs && [`; ${t("pairsOf")} `, el("span", { lang: "en" }, pairs)],
      source?.startsWith("https://") && [" · ", el("a", { href: source, rel: "noreferrer" }, t("source"))],
    ),
  );
}
